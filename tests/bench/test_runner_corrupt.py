"""Damaged image files: an error row, a refusal, or the number of the very bytes that lie there; never anything else."""

import io
import struct
import zlib

import numpy as np
import pytest
import tifffile
from PIL import Image, ImageOps, UnidentifiedImageError
from skimage.metrics import peak_signal_noise_ratio

import dehaze
from bench import datasets, metrics, protocol, record, runner
from bench.methods.shipped import Model

SIZE = (33, 26)
FORMATS = {"png": {}, "jpg": {"quality": 90}, "webp": {"quality": 90}, "bmp": {}, "tif": {}}


def picture(seed, size=SIZE):
    """A smooth picture with some noise, which every format keeps recognisable."""
    random = np.random.default_rng(seed)
    ramp = np.linspace(40, 200, size[0])[None, :, None] + random.normal(0, 12, (size[1], size[0], 3))
    return Image.fromarray(ramp.clip(0, 255).astype(np.uint8))


def encoded(image, suffix):
    file = io.BytesIO()
    image.save(file, {"jpg": "JPEG", "tif": "TIFF"}.get(suffix, suffix.upper()), **FORMATS[suffix])
    return file.getvalue()


def huge_png(width, height):
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    whole = encoded(picture(0), "png")
    return whole[:12] + header + struct.pack(">I", zlib.crc32(header)) + whole[33:]


def damaged():
    """Yield (name, suffix, bytes): files with flipped bits, overwritten stretches, cut ends, and what is no image."""
    random = np.random.default_rng(7)
    for suffix in FORMATS:
        whole = encoded(picture(1), suffix)
        head = min(len(whole), 64)
        for number in range(12):  # half of them in the header, where they do most
            data = bytearray(whole)
            data[random.integers(head if number % 2 else len(data))] ^= 1 << random.integers(8)
            yield f"flipped-{number}", suffix, bytes(data)
        for number in range(5):
            data, start = bytearray(whole), random.integers(2, len(whole) - 20)
            data[start : start + 16] = random.bytes(16)
            yield f"overwritten-{number}", suffix, bytes(data)
        for number, length in enumerate((1, 9, 40, len(whole) // 2, len(whole) - 1)):
            yield f"cut-{number}", suffix, whole[:length]
        yield "empty", suffix, b""
        yield "text", suffix, b"<html><title>404 Not Found</title></html>"
        yield "other-format", suffix, encoded(picture(1), "bmp" if suffix == "png" else "png")
        yield "other-picture", suffix, encoded(picture(2), suffix)
        yield "other-size", suffix, encoded(picture(1, (34, 26)), suffix)
    for number, (width, height) in enumerate(((2**31 - 1, 2**31 - 1), (60_000, 60_000), (13_000, 13_000), (0, 5))):
        yield f"huge-{number}", "png", huge_png(width, height)
    bitmap = bytearray(encoded(picture(1), "bmp"))
    bitmap[18:26] = struct.pack("<ii", 50_000, 50_000)
    yield "huge", "bmp", bytes(bitmap)


def independent_psnr(hazy, clear):
    """Decode with Pillow alone, or what it does not take with tifffile, and score with scikit-image."""

    def decoded(data):
        try:
            return np.asarray(ImageOps.exif_transpose(Image.open(io.BytesIO(data))).convert("RGB"))
        except UnidentifiedImageError:
            return tifffile.imread(io.BytesIO(data))

    return peak_signal_noise_ratio(decoded(clear), decoded(hazy))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning:PIL", "ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("kind", ["hazy", "clear"])
def test_a_damaged_image_never_gives_a_wrong_number(kind, tmp_path):
    other = "clear" if kind == "hazy" else "hazy"
    samples, refused, files = [], [], {}
    for name, suffix, data in damaged():
        id_ = f"{name}.{suffix}"
        root = tmp_path / "sets" / id_
        files[id_] = {kind: data, other: encoded(picture(3), "png")}
        for folder, ending in ((kind, suffix), (other, "png")):
            (root / folder).mkdir(parents=True)
            (root / folder / f"{id_}.{ending}").write_bytes(files[id_][folder])
        try:
            samples += datasets.load(f"folder:{root}").samples
        except datasets.DatasetError as error:
            assert "Sizes differ" in str(error)
            refused.append(id_)
    dataset = datasets.Dataset("damaged", tuple(samples))
    restorer = Model(dehaze.load("identity", device="cpu"))
    made = runner.run(restorer, dataset, protocol.get("native-v1"), {"psnr": metrics.get("psnr")}, tmp_path / "out")
    rows = record.read_values(tmp_path / "out" / f"{made.stem}.json", made)

    assert len(files) > 100
    assert rows.keys() | set(refused) == files.keys()
    assert not any(str(tmp_path) in failure.reason for failure in made.failures)
    failed = {failure.id for failure in made.failures}
    for id_, row in rows.items():
        assert (id_ in failed) != ("psnr" in row.values), id_
        if row.values:
            assert row.values["psnr"] == pytest.approx(independent_psnr(**files[id_]), abs=1e-4), id_
    assert sum(id_.startswith("flipped") for id_ in rows.keys() - failed) > 10  # a flipped bit of colour still decodes
    for suffix in FORMATS:
        assert {f"{name}.{suffix}" for name in ("empty", "text", "cut-0", "cut-3")} <= failed
        assert f"other-size.{suffix}" in refused
        assert {f"{name}.{suffix}" for name in ("other-picture", "other-format")} <= rows.keys() - failed
    assert {"huge-0.png", "huge-1.png", "huge-2.png", "huge-3.png", "huge.bmp"} <= failed | set(refused)
