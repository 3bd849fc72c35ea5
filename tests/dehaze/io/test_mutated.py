"""Damaged files of every format: each is taken or refused, in little time and memory, and nothing else happens."""

import io
import random
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image

from dehaze.io.photo import WRITABLE, read_photo, read_photo_header
from tests import bounded
from tests.dehaze.io.photographs import encoded, png_with
from tests.dehaze.io.test_kinds import LARGE, RAW
from tests.dehaze.io.test_metadata import XMP, camera

SIDE = 48


def read_and_write(path: str) -> None:
    """Read a photograph and its header, and write it in every format that holds it."""
    photo = read_photo(path, max_megapixels=1)
    read_photo_header(Path(path))
    photo.tensor()
    with TemporaryDirectory() as folder:
        for suffix in WRITABLE:
            if (suffix in (".bmp", ".jpg", ".jpeg") and photo.is_transparent) or b"cICP" in photo.metadata.marks:
                continue
            photo.losses(f"photo{suffix}")
            photo.save(Path(folder, f"photo{suffix}"))


def seeds() -> dict[str, bytes]:
    """Make a small file of every format, with all that files say beside their pixels."""
    y, x = np.mgrid[0:SIDE, 0:SIDE]
    colour = np.stack([x * 5, y * 5, (x + y) * 2, 255 - x], axis=-1).astype(np.uint8)
    deep = colour.astype(np.uint16) * 257
    image, clear = Image.fromarray(colour[..., :3]), Image.fromarray(colour)
    about = {"exif": camera("<", thumbnail=b"\xff\xd8 small"), "xmp": XMP % 6, "icc_profile": bytes(200)}
    found = {
        "jpg": encoded(image, "JPEG", **about),
        "progressive.jpg": encoded(image, "JPEG", progressive=True, exif=camera(">"), comment=b"x"),
        "mpo": encoded(image, "MPO", save_all=True, append_images=[image]),
        "png": png_with(encoded(clear, "PNG", exif=about["exif"]), *LARGE["text"], *LARGE["XMP"]),
        "deep.png": encoded(Image.fromarray(deep[..., 0]), "PNG", dpi=(300, 300)),
        "webp": encoded(image, "WEBP", lossless=True, **about),
        "gif": encoded(image, "GIF", save_all=True, append_images=[image]),
        "bmp": encoded(image, "BMP"), "avif": encoded(image, "AVIF"), "jp2": encoded(image, "JPEG2000"),
        "ppm": b"P6 48 48 4095\n" + (deep[..., :3] >> 4).astype(">u2").tobytes(),
        "nef": RAW["NEF"], "dng": RAW["DNG"], "cr3": RAW["CR3"], "raf": RAW["RAF"],
    }  # fmt: skip
    layouts = {
        "plain": {"extratags": [(700, 1, 4, b"<x/>", True), (274, 3, 1, 6, True)]}, "big": {"bigtiff": True},
        "tiles": {"tile": (16, 16), "compression": "zlib", "predictor": 2}, "planes": {"planarconfig": "separate"},
        "zip": {"compression": "zlib", "byteorder": ">"},
    }  # fmt: skip
    for name, layout in layouts.items():
        for kind, samples in (
            ("8", colour[..., :3]),
            ("16", deep[..., :3]),
            ("f", (colour[..., :3] / 255).astype("f4")),
        ):
            if layout.get("predictor") and kind == "f":
                continue
            file, order = io.BytesIO(), samples.transpose(2, 0, 1) if name == "planes" else samples
            tifffile.imwrite(file, np.ascontiguousarray(order), photometric="rgb", metadata=None, **layout)
            found[f"{name}{kind}.tif"] = file.getvalue()
    file = io.BytesIO()
    pillow_heif.from_pillow(image).save(file, exif=about["exif"], quality=50)
    found["heic"] = file.getvalue()
    written = read_photo(found["jpg"])
    with TemporaryDirectory() as folder:
        found["ours.tif"] = written.save(Path(folder, "photo.tif")).read_bytes()
    return found


def mutated(data: bytes, other: bytes, dice: random.Random) -> bytes:
    """Damage a file by one to four changes; half of them hit its first 600 bytes."""
    changed = bytearray(data)
    for _ in range(dice.randint(1, 4)):
        size = len(changed)
        if size < 8:
            break
        at = dice.randrange(min(size, 600) if dice.random() < 0.5 else size)
        length = dice.choice([1, 2, 4, 8, 64, 1000])
        match dice.randrange(8):
            case 0 | 1:
                changed[at] = dice.randrange(256)
            case 2:
                changed[at : at + 4] = dice.choice(
                    [b"\xff" * 4, bytes(4), b"\0\0\0\1", b"\1\0\0\0", b"\x7f\xff\xff\xff"]
                )
            case 3:
                changed[at : at + length] = bytes(length)
            case 4:
                changed[at:at] = changed[at : at + length]
            case 5:
                del changed[at : at + length]
            case 6:
                start = dice.randrange(len(other))
                changed[at : at + length] = other[start : start + length]
            case 7:
                del changed[max(8, at) :]
    return bytes(changed)


def make(folder: Path, count: int, seed: int) -> dict[str, list[str]]:
    """Write damaged files in turn of every format; return the calls that read them, after one of a sound file."""
    dice, found = random.Random(seed), seeds()
    names, calls = list(found), {}
    for i in range(count + 1):
        name = names[i % len(names)]
        path = folder / f"{i:05}.{name}"
        other = found[dice.choice(names)]
        path.write_bytes(mutated(found[name], other, dice) if i else found[name])
        calls[path.name] = [str(path)]
    return calls


@pytest.mark.parametrize("name, data", seeds().items(), ids=lambda value: value if isinstance(value, str) else "")
def test_sound_files_are_taken(tmp_path, name, data):
    if name in ("cr3", "raf"):
        return
    path = tmp_path / f"photo.{name}"
    path.write_bytes(data)
    if name in ("nef", "dng"):
        pytest.importorskip("rawpy")
    read_and_write(str(path))


@pytest.mark.slow
def test_damaged_files_are_taken_or_refused(tmp_path):
    calls = make(tmp_path, 300, seed=0)
    outcomes = bounded.run("tests.dehaze.io.test_mutated:read_and_write", calls, timeout=200)
    assert outcomes.keys() == calls.keys(), "the process ended with the last of these, or hung"
    for name, outcome in list(outcomes.items())[1:]:
        assert outcome.error in (None, "ImageError"), (name, outcome)
        assert outcome.seconds < 5, (name, outcome)
        assert outcome.megabytes < 300, (name, outcome)
