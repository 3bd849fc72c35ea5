import io
import os
import re
import socket
import subprocess
import sys
import threading
import zipfile
import zlib
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlparse

import gradio as gr
import numpy as np
import pytest
import torch
from gradio.mcp import GradioMCPServer
from gradio.utils import get_upload_folder
from gradio_client import Client, handle_file
from gradio_client.exceptions import AppError
from PIL import Image, ImageCms
from playwright.sync_api import expect

import app
import dehaze
from bench import environment, metrics
from bench.record import DatasetInfo, Method, Record, Speed, Summary
from dehaze import hub
from dehaze.density import load_density
from dehaze.errors import WeightsError
from dehaze.io.clip import probe_clip
from dehaze.io.photo import read_photo
from dehaze.page import batch, compare, inference, models, photograph, scores, screen, video, workshop
from dehaze.page.visitors import Allowance
from leaderboard import quality

SIZE = (240, 180)
BROWSER_MS = 120_000  # for machines that do much else at the same time
expect.set_options(timeout=BROWSER_MS)


# What is served


@pytest.fixture(scope="module")
def connections():
    """Record the hosts that this process connects to."""
    hosts = []
    connect, connect_ex = socket.socket.connect, socket.socket.connect_ex

    def watch(original):
        def watched(self, address):
            if self.family in (socket.AF_INET, socket.AF_INET6):
                hosts.append(address[0])
            return original(self, address)

        return watched

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(socket.socket, "connect", watch(connect))
        patch.setattr(socket.socket, "connect_ex", watch(connect_ex))
        yield hosts


@pytest.fixture(scope="module")
def url(tmp_path_factory, connections):
    """Serve the page, with a leaderboard of its own, from a folder of its own."""
    results = tmp_path_factory.mktemp("results")
    for dataset in ("garden", "harbour"):
        for method, psnr in (("api", 10.5), ("dcp", 9.25), ("identity", 101.125)):
            record(method, dataset, psnr).write(results)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("GRADIO_TEMP_DIR", str(tmp_path_factory.mktemp("served")))
        page = app.launch(results, prevent_thread_lock=True, quiet=True)
        yield page.local_url
        page.close()


def record(method, dataset, psnr):
    return Record(
        method=Method(name=method),
        dataset=DatasetInfo(name=dataset, samples=2, pairs=2, fingerprint="ab" * 32),
        protocol="native-v1",
        metrics={"psnr": Summary(mean=psnr, low=psnr - 1, high=psnr + 1, count=2, direction="up", reference=True)},
        speed=Speed(seconds_median=0.5, megapixels_median=0.1, device="cpu", dtype="float32", threads=2),
        created="2025-03-01T12:00:00Z",
    )


@pytest.fixture(scope="module")
def client(url):
    return connect(url)


def connect(url):
    return Client(url, verbose=False, httpx_kwargs={"timeout": BROWSER_MS / 1000})


@pytest.fixture(scope="module")
def hazy():
    """A real hazy photograph, small."""
    return Image.open(app.SAMPLE / "real" / "golden-temple.jpg").resize(SIZE)


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    """What people drop in by mistake or malice: the file of each kind, and words of the message that it must give."""
    folder = tmp_path_factory.mktemp("bad")
    whole = (app.SAMPLE / "real" / "golden-temple.jpg").read_bytes()
    svg = b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'><rect width='9' height='9'/></svg>"
    header = whole[: whole.index(b"\xff\xda")]
    kinds = {
        "letter.jpg": (b"Dear Sir or Madam", "letter.jpg is not an image"),
        "half.jpg": (whole[: len(whole) // 2], "half.jpg is damaged or cut short"),
        "header.jpg": (header, "header.jpg is not an image"),
        "noise.jpg": (whole[:2] + bytes(range(256)) * 4, "noise.jpg is not an image"),
        "empty.png": (b"", "empty.png is empty"),
        "huge.png": (encoded((8000, 8000), "1"), "huge.png has 64.0 megapixels (8000×8000), and the limit is 60. Make"),
        "bomb.png": (bomb(60_000, 60_000), "bomb.png has 3600.0 megapixels"),
        "boundless.png": (bomb(2**31 - 1, 2**31 - 1), "boundless.png"),
        "thread.png": (encoded((100_000, 1), "1"), "thread.png has 100000×1 pixels"),
        "dot.png": (encoded((1, 1), "RGB"), "dot.png has 1×1 pixels"),
        "nothing.png": (bomb(0, 0), "nothing.png"),
        "drawing.svg": (svg, "drawing.svg is not an image"),
        "drawing.png": (svg, "drawing.png is not an image"),
        "page.html": (b"<script>alert(1)</script>", "page.html is not an image"),
        "photos.zip": (zipped({"../a.png": b"x"}), "photos.zip is not an image"),
        "paper.pdf": (b"%PDF-1.7\n", "paper.pdf is not an image"),
        "print.eps": (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "print.eps is not an image"),
        "phone.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(40), "phone.heic"),
        "pickle.npy": (b"\x93NUMPY\x01\0" + bytes(60), "pickle.npy is not an image"),
        "program.jpg": (b"\x7fELF" + bytes(60), "program.jpg is not an image"),
        "deep.tif": (encoded((20, 20), "F", "TIFF", 7.0), "deep.tif holds float values"),
    }
    for name, (data, _) in kinds.items():
        (folder / name).write_bytes(data)
    return {folder / name: message for name, (_, message) in kinds.items()}


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


def zipped(members, compression=zipfile.ZIP_STORED):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


# For programs


@pytest.mark.parametrize(("model", "strength"), [("api", 1), ("dcp", 0.5)])
def test_api_gives_the_pixels_of_the_model(client, hazy, tmp_path, model, strength):
    hazy.save(path := tmp_path / "temple.png")
    restored, density, facts = client.predict(handle_file(path), model, strength, api_name="/dehaze")
    expected = dehaze.load(model)(path, strength)

    assert restored.endswith("temple_dehazed.png")
    assert np.array_equal(np.asarray(Image.open(restored)), expected.pixels)
    assert np.abs(np.asarray(Image.open(density)) / 255 - expected.density).max() < 1 / 255
    assert (facts["model"], facts["strength"], facts["megapixels"]) == (model, strength, 0.0432)
    assert facts["seconds"] > 0
    for name in ("niqe", "fade_refit"):
        metric = metrics.get(name)
        assert facts["before"][name] == pytest.approx(float(metric(read_photo(hazy).tensor())))
        assert facts["after"][name] == pytest.approx(float(metric(expected.photo.tensor())))


def test_api_keeps_the_kind_of_file(client, hazy, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "Old Box Camera"  # orientation: turn by 90°; model
    hazy.save(upright := tmp_path / "IMG 1.JPG", exif=exif)
    restored = Image.open(client.predict(handle_file(upright), "dcp", 1, api_name="/dehaze")[0])
    assert (restored.format, restored.size) == ("JPEG", SIZE[::-1])
    assert (restored.getexif()[0x0110], restored.getexif().get(0x0112, 1)) == ("Old Box Camera", 1)

    samples = np.asarray(hazy).astype(np.uint16) * 257
    deep = read_photo(samples).save(tmp_path / "deep.png")
    restored = read_photo(client.predict(handle_file(deep), "dcp", 1, api_name="/dehaze")[0])
    assert np.array_equal(restored.pixels, dehaze.load("dcp")(deep).pixels)
    assert restored.pixels.dtype == np.uint16


def test_api_explains_what_is_wrong(client, bad, hazy, tmp_path):
    hazy.save(good := tmp_path / "temple.png")
    calls = [(path, "api", 1, message) for path, message in bad.items()]
    calls += [(good, model, 1, "The model is one of api") for model in ("dpc", "org/name", "identity", "", None, 7, [])]
    wrong = (2, -1, "full", None, [1], {})
    calls += [(good, "dcp", strength, "The strength is a number between 0") for strength in wrong]
    for path, model, strength, message in calls:
        with pytest.raises(AppError) as error:
            client.predict(handle_file(path), model, strength, api_name="/dehaze")
        assert message in str(error.value)
        assert str(path.parent) not in str(error.value) and "/dehaze" not in str(error.value)
    assert client.predict(handle_file(good), "dcp", 1, api_name="/dehaze")  # the server lives


def test_many_callers_are_all_answered(client, hazy, tmp_path):
    """Each gets the result of the photograph that it sent."""
    paths = []
    for i in range(12):
        Image.blend(hazy, Image.new("RGB", SIZE, "white"), i / 24).save(tmp_path / f"{i}.png")
        paths.append(tmp_path / f"{i}.png")

    def call(path):
        restored = client.predict(handle_file(path), "dcp", 1, api_name="/dehaze")[0]
        return np.asarray(Image.open(restored))

    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(call, paths))
    assert all(
        np.array_equal(answer, dehaze.load("dcp")(path).pixels) for path, answer in zip(paths, answers, strict=True)
    )


def test_a_caller_who_leaves_does_not_hold_up_the_rest(url, client, hazy, tmp_path):
    hazy.resize((1200, 900)).save(large := tmp_path / "large.png")
    hazy.save(small := tmp_path / "small.png")
    leaving = connect(url)
    job = leaving.submit(handle_file(large), "api", 1, api_name="/dehaze")
    leaving.close()
    job.cancel()
    assert client.predict(handle_file(small), "dcp", 1, api_name="/dehaze")


def test_each_visitor_has_a_limit(client, hazy, tmp_path, monkeypatch):
    hazy.save(path := tmp_path / "temple.png")
    monkeypatch.setattr(workshop, "allowance", Allowance({"megapixels": 0.05}, 600))
    client.predict(handle_file(path), "dcp", 1, api_name="/dehaze")
    with pytest.raises(AppError, match="Come back in 10 minutes"):
        client.predict(handle_file(path), "dcp", 1, api_name="/dehaze")


def test_api_is_one_documented_function(client):
    api = client.view_api(return_format="dict", print_info=False)
    assert list(api["named_endpoints"]) == ["/dehaze"] and not api["unnamed_endpoints"]
    parameters = api["named_endpoints"]["/dehaze"]["parameters"]
    assert [parameter["parameter_name"] for parameter in parameters] == ["photo", "model", "strength"]
    assert set(parameters[1]["type"]["enum"]) == set(dehaze.list_models()) - {"identity"}


def test_agents_are_told_how_to_call_it(tmp_path):
    """The tool as gradio describes it over MCP; serving it needs one package more, describing it does not."""
    server = object.__new__(GradioMCPServer)
    server.blocks, server.tool_prefix = app.build(tmp_path), ""
    server.api_info = server.blocks.get_api_info()
    server.tool_to_endpoint = server.get_tool_to_endpoint()
    assert server.tool_to_endpoint == {"remove_haze": "/dehaze"}
    endpoint = server.get_block_fn_from_endpoint_name("/dehaze")
    description, parameters = server.get_fn_description(endpoint, "remove_haze")
    assert description.startswith("Remove haze from a photograph. Returns the restored photograph")
    schema, files = server.get_input_schema("remove_haze", parameters)
    assert (files, schema["required"]) == ([["photo"]], ["photo"])
    for name, kind, words in (
        ("photo", "string", "up to 60 megapixels"),
        ("model", "string", "name of the model"),
        ("strength", "number", "restores it in full"),
    ):
        told = schema["properties"].pop(name)
        assert told["type"] == kind and words in told["description"]
    assert not schema["properties"]


# For people


@pytest.fixture
def visit(browser, url):
    """Open the page; at the end there must have been no error, and no request to anybody else."""
    contexts, troubles = [], []

    def open_page(width=1280, height=900, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(BROWSER_MS)
        page.on("console", lambda message: message.type == "error" and troubles.append(message.text))
        page.on("pageerror", lambda error: troubles.append(str(error)))
        page.on("request", lambda request: foreign(request.url) and troubles.append(f"asked {request.url}"))
        page.goto(url)
        page.get_by_role("button", name="Remove haze", exact=True).wait_for()
        return page

    def foreign(asked):
        return urlparse(asked).scheme not in ("data", "blob") and urlparse(asked).netloc != urlparse(url).netloc

    yield open_page
    for context in contexts:
        context.close()
    assert not troubles


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


@pytest.mark.parametrize("size", [(1280, 900), (390, 844)])
def test_nothing_jumps_while_the_page_opens(visit, size):
    page = visit(*size)
    page.wait_for_timeout(1000)
    moved = """() => new Promise(tell => new PerformanceObserver(list => {
      tell(list.getEntries().reduce((sum, shift) => sum + shift.value, 0));
    }).observe({type: 'layout-shift', buffered: true}))"""
    # An observer is told of no shift if there was none: then a shift of our own is all that it sees.
    page.evaluate("document.querySelector('#intro').style.marginTop = '10px'")
    assert 0 < page.evaluate(moved) < 0.05


def test_visitor_restores_compares_and_downloads(visit, hazy, tmp_path, monkeypatch):
    restorations = []
    original = screen.restored
    monkeypatch.setattr(screen, "restored", lambda *args: restorations.append(args) or original(*args))
    hazy.save(path := tmp_path / "temple.png")
    expected = dehaze.load("api")(path)

    page = visit()
    upload(page, path)
    restore(page)
    await_result(page)

    assert shown_sizes(page, "#slider img") == [list(SIZE), list(SIZE)]
    assert shown_sizes(page, "#density img") == [list(SIZE)]
    cells = page.locator("#scores tbody tr").nth(2).locator("td").all_inner_texts()[:2]
    metric = metrics.get("fade_refit")
    wanted = [float(metric(read_photo(path).tensor())), float(metric(expected.photo.tensor()))]
    assert [float(cell) for cell in cells] == [round(value, 2) for value in wanted]
    expect(page.locator("#scores .words")).to_contain_text("before")
    taken = download(page, tmp_path)
    assert taken.name == "temple_dehazed.png"
    assert np.array_equal(np.asarray(Image.open(taken)), expected.pixels)
    page.locator("#slider").scroll_into_view_if_needed()
    assert np.abs(mean_colour(page, 0.1, 0.4) - mean_of(hazy, 0.1, 0.4)).max() < 3
    assert np.abs(mean_colour(page, 0.6, 0.9) - mean_of(expected.pixels, 0.6, 0.9)).max() < 3

    # Another strength shows at once, from the pictures that are there, and gives another photograph.
    pictures = page.eval_on_selector_all("#slider img", "all => all.map(e => e.src)")
    set_strength(page, 0.5)
    expect(page.locator("#slider img").nth(1)).to_have_css("opacity", "0.5")
    blend = (np.asarray(hazy).astype(float) + expected.pixels) / 2
    assert np.abs(mean_colour(page, 0.1, 0.4) - mean_of(hazy, 0.1, 0.4)).max() < 3
    assert np.abs(mean_colour(page, 0.6, 0.9) - mean_of(blend, 0.6, 0.9)).max() < 3
    assert page.eval_on_selector_all("#slider img", "all => all.map(e => e.src)") == pictures
    expect(page.locator("#scores tbody td").nth(7)).not_to_have_text(cells[1])
    await_download(page.locator("#download"))
    page.get_by_label("JPEG").first.check()
    expect(page.locator("#download")).to_contain_text("Download JPG")
    page.get_by_label("PNG").first.check()
    expect(page.locator("#download")).to_contain_text("Download PNG")
    halfway = np.asarray(Image.open(download(page, tmp_path))).astype(float)
    assert np.abs(halfway - blend).max() <= 1
    assert len(restorations) == 1


def test_keys_move_the_divider(visit, hazy, tmp_path):
    hazy.save(path := tmp_path / "temple.png")
    page = visit()
    upload(page, path)
    restore(page)
    await_result(page)
    divider = page.get_by_role("slider", name="Divider between before and after").first
    divider.focus()

    def place():
        style = page.locator("#slider img").nth(1).get_attribute("style")
        return float(re.search(r"inset\(\S+ \S+ \S+ ([\d.]+)%", style)[1])

    middle = place()
    for _ in range(4):
        divider.press("ArrowRight")
    assert middle + 15 < place() < middle + 35
    expect(divider).to_have_attribute("aria-valuenow", re.compile(r"6\d|7\d"))
    for _ in range(4):
        divider.press("ArrowLeft")
    assert abs(place() - middle) < 3


def test_visitor_compares_models(visit, hazy, tmp_path):
    hazy.save(path := tmp_path / "temple.png")
    page = visit()
    upload(page, path)
    page.get_by_role("button", name="Compare models on this photograph").click()
    models = page.locator("#compare-models")
    models.get_by_role("button", name="Compare", exact=True).click()
    count = len(dehaze.list_models()) - 1  # all but the one that changes nothing
    expect(models.locator("tbody tr")).to_have_count(1 + count)
    expect(models.locator(".before-after")).to_have_count(count)
    assert shown_sizes(page, "#compare-models .before-after img") == [list(SIZE)] * 2 * count
    expect(models.get_by_alt_text("After: haze removed")).to_have_count(count)


def test_visitor_restores_many(visit, hazy, tmp_path):
    hazy.save(tmp_path / "a.jpg")
    (tmp_path / "b.zip").write_bytes(zipped({"b.jpg": (tmp_path / "a.jpg").read_bytes(), "c.jpg": b"no photograph"}))
    page = visit()
    page.get_by_role("tab", name="Batch").click()
    page.locator("#files input[type=file]").set_input_files([tmp_path / "a.jpg", tmp_path / "b.zip"])
    expect(page.locator("#files").get_by_role("button", name="Remove this file")).to_have_count(2)
    page.get_by_role("button", name="Remove haze from all").click()
    expect(page.locator("#batch")).to_contain_text("3 of 3 done, 1 failed")
    expect(page.locator("#batch")).to_contain_text("c.jpg is not an image")
    await_download(page.locator("#download-all"))
    with zipfile.ZipFile(download(page, tmp_path, "#download-all")) as archive:
        assert archive.namelist() == ["a_dehazed.jpg", "b_dehazed.jpg"]
        assert Image.open(archive.open("b_dehazed.jpg")).size == SIZE


def test_visitor_stops_a_batch_and_takes_what_is_done(visit, hazy, tmp_path, monkeypatch):
    at_hand, done = threading.Event(), threading.Event()
    original = batch.restored

    def slowly(*arguments):
        if at_hand.is_set():
            done.wait(60)
        at_hand.set()
        return original(*arguments)

    monkeypatch.setattr(batch, "restored", slowly)
    files = [tmp_path / f"{name}.jpg" for name in "abc"]
    for file in files:
        hazy.save(file)
    page = visit()
    page.get_by_role("tab", name="Batch").click()
    page.locator("#files input[type=file]").set_input_files(files)
    expect(page.locator("#files").get_by_role("button", name="Remove this file")).to_have_count(3)
    page.get_by_role("button", name="Remove haze from all").click()
    expect(page.locator("#batch")).to_contain_text("1 of 3 done")
    with page.expect_response(re.compile("/run/")):
        page.get_by_role("button", name="Stop").first.click()
    done.set()
    expect(page.locator("#batch")).to_contain_text("Stopped: 2 of 3 done")
    await_download(page.locator("#download-all"))
    with zipfile.ZipFile(download(page, tmp_path, "#download-all")) as archive:
        assert archive.namelist() == ["a_dehazed.jpg", "b_dehazed.jpg"]


@pytest.fixture(scope="module")
def clips(hazy, tmp_path_factory):
    """A long clip and a short one, as MP4 that Chromium plays."""
    cv2 = pytest.importorskip("cv2")
    frame, folder = cv2.cvtColor(np.asarray(hazy), cv2.COLOR_RGB2BGR), tmp_path_factory.mktemp("clips")
    for name, count in (("long", 240), ("short", 4)):
        path = str(folder / f"{name}.mp4")
        writer = cv2.VideoWriter(path, cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"vp09"), 30, SIZE)
        for _ in range(count):
            writer.write(frame)
        writer.release()
    return folder


def test_visitor_restores_a_clip_and_stops_another(visit, clips):
    page = visit()
    page.get_by_role("tab", name="Video").click()
    state, start = page.locator("#frames"), page.get_by_role("button", name="Remove haze from the clip")

    def give(name):
        page.locator("#clip input[type=file]").first.set_input_files(clips / name)
        page.locator("#clip video").wait_for()
        start.click()

    stop = page.get_by_role("button", name="Stop").last
    stop.click()  # of no run, and so not of the next
    for _ in range(2):
        give("long.mp4")
        expect(state).to_contain_text("of about 240 frames")
        stop.click()
        expect(state).to_have_text("Stopped.")
        page.locator("#clip").get_by_label("Clear").click()

    give("short.mp4")  # what was stopped holds nothing up
    expect(state).to_contain_text("4 frames restored")
    page.wait_for_function("() => document.querySelector('#restored-clip video')?.readyState >= 2")
    assert page.locator("#restored-clip video").evaluate("e => [e.videoWidth, e.videoHeight]") == list(SIZE)
    served = get_upload_folder()
    assert [path.name for path in Path(served).rglob("*_dehazed.webm")] == ["short_dehazed.webm"]


def test_visitor_tries_an_example(visit):
    page = visit()
    page.get_by_role("button", name="forbidden city").click()
    await_result(page)
    size = list(Image.open(app.SAMPLE / "real" / "forbidden-city.jpg").size)
    assert shown_sizes(page, "#slider img") == [size, size]
    expect(page.locator("#slider").get_by_alt_text("After: haze removed")).to_be_visible()
    page.get_by_text("Who took these photographs").click()
    expect(page.get_by_text("Gary Todd")).to_be_visible()


def test_visitor_is_told_what_is_wrong(visit, bad):
    page = visit()

    def told():
        toast = page.get_by_test_id("toast-text").last
        text = toast.inner_text()
        page.get_by_test_id("toast-close").last.click()
        toast.wait_for(state="detached")
        return text

    restore(page)
    assert "no photograph yet" in told()
    for path, message in list(bad.items())[:6]:  # the others are refused to programs alike
        upload(page, path)
        restore(page)
        assert message in told()
        page.get_by_label("Remove Image").click()


def test_visitor_reads_the_leaderboard(visit):
    page = visit()
    page.get_by_role("tab", name="Leaderboard").click()

    def column(index):
        cells = page.locator(f"#methods [role=gridcell][data-col='{index}']")
        cells.first.wait_for()
        return cells.all_inner_texts()

    assert column(0) == ["identity", "api", "dcp"]  # the best first
    assert column(2) == ["101.1 [100, 102]", "10.5 [9.5, 11.5]", "9.25 [8.25, 10.2]"]
    expect(page.locator("#notes")).to_contain_text("garden: 2 images, 2 of them with a clear one")
    expect(page.locator("#notes")).to_contain_text("native-v1")
    assert shown_sizes(page, "#figure img") == [[1120, 720]]

    header = page.locator("#methods th").nth(2)
    header.click()
    header.get_by_label("Open cell menu").click()
    page.get_by_text("Sort ascending").click()
    expect(page.locator("#methods [role=gridcell]").first).to_have_text("dcp")  # as numbers: 9.25 < 10.5 < 101
    assert column(0) == ["dcp", "api", "identity"]

    page.locator("#methods").get_by_placeholder("Search").fill("api")
    expect(page.locator("#methods [role=gridcell][data-col='0']")).to_have_count(1)

    page.get_by_label("Data set").click()
    page.get_by_role("option", name="harbour").click()
    expect(page.locator("#notes")).to_contain_text("harbour: 2 images")


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_phone_needs_no_sideways_scrolling(visit, hazy, tmp_path, scheme):
    hazy.save(path := tmp_path / "temple.jpg")
    page = visit(390, 844, scheme)
    too_wide = "document.documentElement.scrollWidth - innerWidth"
    assert page.evaluate(too_wide) <= 0
    upload(page, path)
    restore(page)
    await_result(page)
    expect(page.locator("#slider")).to_be_in_viewport(ratio=0.9)  # scrolled to
    assert page.evaluate(too_wide) <= 0
    assert Image.open(download(page, tmp_path)).size == SIZE
    for name in ("Batch", "Video"):
        page.get_by_role("tab", name=name).click()
        page.get_by_role("button", name="Stop").last.wait_for()
        assert page.evaluate(too_wide) <= 0
    page.get_by_role("tab", name="Leaderboard").click()
    page.locator("#methods [role=gridcell]").first.wait_for()
    assert page.evaluate(too_wide) <= 0


# Pieces


def test_results_keep_what_the_file_says_in_either_format(hazy, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "Old Box Camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    hazy.save(path := tmp_path / "phone.jpg", exif=exif, icc_profile=profile)
    result, _, _ = photograph.run({"path": str(path)}, "dcp", None)
    for form, kind in (("PNG", "PNG"), ("JPEG", "JPEG"), ("as it came", "JPEG")):
        *_, button = photograph.prepare(result, 1, form)
        taken = Image.open(button.value["path"])
        assert (taken.format, taken.size) == (kind, SIZE[::-1])
        assert taken.getexif()[0x0110] == "Old Box Camera" and taken.getexif().get(0x0112, 1) == 1
        assert taken.info["icc_profile"] == profile


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A small CLIP of random weights, in the folder of the weights that ship."""
    from dehaze.training.recipes.clip import make_clip, save_clip

    folder = tmp_path_factory.mktemp("weights") / "clip"
    torch.manual_seed(0)
    save_clip(make_clip(width=32, layers=1), folder)
    return folder


@pytest.mark.parametrize("by_clip", [False, True])
def test_panel_tells_of_the_strength_that_is_shown(hazy, tmp_path, clip, monkeypatch, by_clip):
    """The density is CLIP's where one ships, else the model's."""
    teller = load_density(clip) if by_clip else None
    monkeypatch.setattr(inference, "haze_estimator", lambda: teller)

    def density(picture):
        if by_clip:
            return teller.map(read_photo(picture).tensor()).mean().item()
        return dehaze.load("api")(picture).density.mean()

    hazy.save(path := tmp_path / "temple.png")
    result, _, _ = photograph.run({"path": str(path)}, "api", None)
    restored = Image.fromarray(dehaze.load("api")(path).pixels)
    half = Image.blend(hazy, restored, 0.5)
    table = photograph.score(result, 0.5)
    for name, value in quality.measure(half).items():
        assert f"<td>{result.scores_before[name]:.2f}</td><td>{value:.2f}</td>" in table
    assert f"<td>{density(hazy):.0%}</td><td>{density(half):.0%}</td>" in table
    assert scores.in_words(density(half)) in table and ("CLIP" in table) == by_clip
    *_, (table, *_) = compare.compare({"path": str(path)}, ["api"], None)
    assert f"<td>{density(hazy):.0%} → {density(restored):.0%}</td>" in table


def test_clip_tells_the_haze_as_soon_as_it_ships(clip, tmp_path, monkeypatch):
    for folder, ships in ((tmp_path, False), (clip.parent, True)):
        monkeypatch.setattr(hub, "SHIPPED", folder)
        inference.haze_estimator.cache_clear()
        assert (inference.haze_estimator() is not None) == ships
    inference.haze_estimator.cache_clear()


def test_what_comes_beside_never_costs_a_restoration(hazy, tmp_path, monkeypatch):
    """A CLIP model that cannot be loaded, one that fails, and a density that cannot be drawn."""

    def fail(*arguments):
        raise WeightsError("is damaged", subject="clip")

    hazy.save(path := tmp_path / "temple.png")
    expected = dehaze.load("dcp")(path)
    inference.haze_estimator.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(inference, "load_density", fail)
        result, pair, map_ = photograph.run({"path": str(path)}, "dcp", None)
        assert result.density == pytest.approx(expected.density.mean(), abs=1e-3) and map_.is_file()
    inference.haze_estimator.cache_clear()
    for broken in ("haze_density", "density_map"):
        with monkeypatch.context() as patch:
            patch.setattr(photograph, broken, fail)
            result, pair, map_ = photograph.run({"path": str(path)}, "dcp", None)
            assert map_ is None and all(file.is_file() for file in pair)
            assert "FADE" in photograph.score(result, 1)
        assert np.array_equal(result.kept.at(1).pixels, expected.pixels)


def test_a_number_that_is_being_typed_changes_nothing():
    assert list(photograph.prepare(None, 1, "PNG")) == []
    assert photograph.score(None, 1)["__type__"] == "update"


def test_models_are_introduced_without_being_loaded(monkeypatch):
    monkeypatch.setattr(dehaze, "load", None)
    models.model_choices.cache_clear()
    lines = {name: line for line, name in models.model_choices()}
    assert set(lines) == set(dehaze.list_models()) - {"identity"}
    assert re.fullmatch(r"api\n[\w -]+; apache-2.0, trained on .*, \d+\.\d\d s a megapixel on a CPU", lines["api"])
    assert re.fullmatch(r"dcp\nRestore by the dark channel prior; apache-2.0, not trained, .*", lines["dcp"])


def test_a_card_introduces_its_model(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "SHIPPED", tmp_path)
    (tmp_path / "progressive_api").mkdir()
    card = "---\nlicense: mit\ndatasets: [SUN]\n---\n\n# `progressive:api`: `api` in two rounds\n\nText: more.\n"
    (tmp_path / "progressive_api" / "README.md").write_text(card)
    assert models.introduction("progressive:api", 0.5) == (
        "progressive:api\napi in two rounds; mit, trained on SUN, 0.50 s a megapixel on a CPU"
    )


def test_comparison_shows_every_chosen_model(hazy, tmp_path):
    hazy.save(path := tmp_path / "temple.png")
    *_, (table, *_) = compare.compare({"path": str(path)}, ["dcp", "api"], None)
    rows = re.findall(r"<tr><th scope=row>(.*?)</th>(.*?)</tr>", table)
    assert [name for name, _ in rows] == ["photograph", "dcp", "api"]
    for name in ("dcp", "api"):
        scores = quality.measure(Image.fromarray(dehaze.load(name)(path).pixels))
        cells = re.findall("<td>(.*?)</td>", dict(rows)[name])
        assert cells[:2] == [f"{scores['niqe']:.2f}", f"{scores['fade_refit']:.2f}"]


def test_batch_tells_of_each_and_packs_what_there_is(hazy, bad, tmp_path):
    hazy.save(tmp_path / "a.png")
    (tmp_path / "more.zip").write_bytes(zipped({"b.png": (tmp_path / "a.png").read_bytes(), "c.png": b"no"}))
    uploads = [{"path": str(path)} for path in (tmp_path / "a.png", tmp_path / "more.zip", next(iter(bad)))]
    states, buttons = zip(*batch.restore_batch(uploads, "dcp", 1, "JPEG", None), strict=True)
    assert "0 of 4 done" in states[0] and "4 of 4 done, 2 failed" in states[-2]
    assert "c.png is not an image" in states[-2] and str(tmp_path) not in states[-2]
    with zipfile.ZipFile(buttons[-1].value["path"]) as archive:
        assert archive.namelist() == ["a_dehazed.jpg", "b_dehazed.jpg"]
    with pytest.raises(gr.Error, match="no photograph yet"):
        next(batch.restore_batch(None, "dcp", 1, "JPEG", None))


def test_archives_that_mean_harm_are_explained(hazy, tmp_path):
    """What they do to the reader of archives itself is looked at in the tests of `dehaze.page.batch`."""
    hazy.save(photo := tmp_path / "a.png")
    kinds = {
        "climbing.zip": (zipped({"../../b.png": photo.read_bytes()}), "b.png"),
        "bomb.zip": (zipped({"b.png": bytes(150_000_000)}, zipfile.ZIP_DEFLATED), "more than 100 MB"),
        "nested.zip": (zipped({"b.zip": zipped({"c.png": b"c"})}), "b.zip is not an image"),
        "damaged.zip": (zipped({"b.png": b"b"})[:-30], "damaged.zip"),
        "letter.zip": (b"Dear Sir or Madam", "letter.zip"),
    }
    for name, (data, words) in kinds.items():
        (tmp_path / name).write_bytes(data)
        uploads = [{"path": str(path)} for path in (tmp_path / name, photo)]
        try:
            *_, told, _ = (state for state, _ in batch.restore_batch(uploads, "dcp", 1, "as it came", None))
            assert "2 of 2 done" in told
        except gr.Error as error:
            told = error.message
        assert words in told and str(tmp_path) not in told, name
    assert not (tmp_path.parent / "b_dehazed.png").exists()


def test_video_tells_how_far_it_is_and_explains(hazy, tmp_path):
    cv2 = pytest.importorskip("cv2")
    frame = cv2.cvtColor(np.asarray(hazy), cv2.COLOR_RGB2BGR)
    writer = cv2.VideoWriter(str(tmp_path / "a.mp4"), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"mp4v"), 10, SIZE)
    for _ in range(3):
        writer.write(frame)
    writer.release()
    *steps, (last, target) = video.restore_video({"path": str(tmp_path / "a.mp4")}, "api", 1, None)
    assert [f"{done} of about 3 frames" in words for done, (words, _) in enumerate(steps, 1)] == [True] * 3
    assert "3 frames restored" in last and probe_clip(target).count == 3

    (tmp_path / "b.mp4").write_bytes(b"#EXTM3U\nfile:///etc/passwd")
    with pytest.raises(gr.Error, match=r"b\.mp4 is not an MP4") as error:
        list(video.restore_video({"path": str(tmp_path / "b.mp4")}, "api", 1, None))
    assert str(tmp_path) not in str(error.value)


def test_polyglots_come_out_as_pictures_alone(hazy, tmp_path):
    hazy.save(path := tmp_path / "both.png")
    path.write_bytes(path.read_bytes() + zipped({"evil.html": b"<script>"}))
    result, _, _ = photograph.run({"path": str(path)}, "dcp", None)
    *_, button = photograph.prepare(result, 1, "as it came")
    assert not zipfile.is_zipfile(button.value["path"])


def test_a_zerogpu_space_lends_its_gpu_to_what_infers(tmp_path):
    """Where `spaces` is installed, its decorator is taken, and comes before torch."""
    (tmp_path / "spaces.py").write_text(
        "import sys\nassert 'torch' not in sys.modules\nlent = []\n"
        "def GPU(function):\n    lent.append(function.__name__)\n    return function\n"
    )
    command = "import app, spaces; print(*spaces.lent)"
    path = os.pathsep.join([str(tmp_path), str(Path(app.__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", command], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["infer", "infer_clip"], done.stderr


def test_only_a_few_models_stay_in_memory():
    assert inference.dehazer.cache_parameters()["maxsize"] == inference.MODELS_KEPT


def test_the_explorer_shows_only_what_was_scored():
    found = Record(**{**vars(record("dcp", "sample", 9)), "method": Method(name="dcp", code=environment.code())})
    path = app.SAMPLE / "real" / "golden-temple.jpg"
    assert np.array_equal(np.asarray(app.restore_as(found, path)), dehaze.load("dcp")(path).pixels)
    for changed in ({"weights_sha256": "0" * 64}, {"config_sha256": "0" * 64}, {"code": "of another version"}):
        other = Record(**{**vars(found), "method": replace(found.method, **changed)})
        assert app.restore_as(other, path) is None, changed
    assert app.restore_as(Record(**{**vars(found), "method": Method(name="theirs")}), path) is None


def test_no_network(url, client, connections):
    """Runs last: whatever was done above, this process talked to itself alone."""
    assert connections and set(connections) <= {"127.0.0.1", "localhost", "::1"}
