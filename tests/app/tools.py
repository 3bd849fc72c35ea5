"""What the tests of the page share: files of every kind, and what a visitor does."""

import io
import zipfile
import zlib

import av
import numpy as np
from gradio_client import Client
from PIL import Image
from playwright.sync_api import expect

from bench.record import DatasetInfo, Method, Record, Speed, Summary

SIZE = (240, 180)
BROWSER_MS = 120_000  # for machines that do much else at the same time
expect.set_options(timeout=BROWSER_MS)


def encoded(size, mode, kind="PNG", colour=0):
    file = io.BytesIO()
    Image.new(mode, size, colour).save(file, kind)
    return file.getvalue()


def bomb(width, height):
    """Make a small PNG file that states these sides."""
    data = bytearray(encoded((1, 1), "L"))
    data[16:24] = width.to_bytes(4, "big") + height.to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    return bytes(data)


def write_clip(path, image, count, rate=30, pixel_aspect=1):
    """Write a clip that shows an image, with a tone."""
    with av.open(str(path), "w") as output:
        pictures = output.add_stream("libx264", rate, width=image.width, height=image.height)
        pictures.codec_context.sample_aspect_ratio = pixel_aspect
        sound = output.add_stream("aac", 48_000, layout="mono")
        tone = np.sin(np.arange(48_000 * count // rate) / 20)[None].astype(np.float32)
        frame = av.AudioFrame.from_ndarray(tone, "fltp", "mono")
        frame.sample_rate = 48_000
        output.mux(sound.encode(frame) + sound.encode(None))
        for _ in range(count):
            output.mux(pictures.encode(av.VideoFrame.from_image(image)))
        output.mux(pictures.encode(None))


def zipped(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def record(method, dataset, psnr):
    return Record(
        method=Method(name=method),
        dataset=DatasetInfo(name=dataset, samples=2, pairs=2, fingerprint="ab" * 32),
        protocol="native-v1",
        metrics={"psnr": Summary(mean=psnr, low=psnr - 1, high=psnr + 1, count=2, direction="up", reference=True)},
        speed=Speed(seconds_median=0.5, megapixels_median=0.1, device="cpu", dtype="float32", threads=2),
        created="2025-03-01T12:00:00Z",
    )


def connect(url):
    return Client(url, verbose=False, httpx_kwargs={"timeout": BROWSER_MS / 1000})


def upload(page, path):
    page.locator("#photo input[type=file]").first.set_input_files(path)
    page.locator("#photo img").wait_for(state="attached")


def restore(page):
    page.get_by_role("button", name="Remove haze", exact=True).click()


def await_result(page):
    """Wait for the scores and the download, which come last."""
    page.locator("#scores td").first.wait_for()
    await_download(page.locator("#download"))


def await_download(button):
    expect(button).to_contain_text("Download")
    expect(button).to_be_enabled(timeout=BROWSER_MS)


def set_strength(page, value):
    page.get_by_label("number input for Strength").first.fill(str(value))


def shown_sizes(page, selector):
    page.wait_for_function(
        "s => [...document.querySelectorAll(s)].every(e => e.complete && e.naturalWidth > 0)", arg=selector
    )
    return page.eval_on_selector_all(selector, "all => all.map(e => [e.naturalWidth, e.naturalHeight])")


def mean_colour(page, left, right):
    """Average what is seen of the slider's picture between two parts of its width, in the middle of its height."""
    box = page.locator("#slider img").first.bounding_box()
    seen = Image.open(io.BytesIO(page.screenshot())).convert("RGB")
    height = min(box["height"], box["width"] * SIZE[1] / SIZE[0])
    width, middle = height * SIZE[0] / SIZE[1], box["y"] + box["height"] / 2
    start = box["x"] + (box["width"] - width) / 2
    area = (start + left * width, middle - 0.2 * height, start + right * width, middle + 0.2 * height)
    return np.asarray(seen.crop(tuple(map(round, area)))).mean((0, 1))


def mean_of(pixels, left, right):
    width, height = SIZE
    middle = np.asarray(pixels)[round(0.3 * height) : round(0.7 * height)]
    return middle[:, round(left * width) : round(right * width)].mean((0, 1))


def download(page, folder, button="#download"):
    with page.expect_download() as started:
        page.locator(button).click()
    path = folder / started.value.suggested_filename
    started.value.save_as(path)
    return path
