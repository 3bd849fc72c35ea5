"""Photographs of every format, depth and kind through a model that changes nothing: what comes out, field by field."""

import io
import struct
import zlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pillow_heif
import pytest
import tifffile
from PIL import Image, ImageCms

import dehaze
from dehaze.dehazer import Dehazer
from dehaze.io.names import output_name
from dehaze.io.photo import read_photo
from tests.dehaze.io.photographs import encoded, exif_of, fields, png_with

SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
HEIGHT, WIDTH = 36, 52
# The largest and the mean difference of a sample of 8 bits that a codec may make.
LOSSY = {"JPEG": (6, 1.0), "WEBP": (9, 1.5)}


@dataclass(frozen=True)
class Case:
    """A file to make: format, mode of its pixels (with ;16 for 16 bits), orientation, and what it says beside them."""

    format: str
    mode: str
    orientation: int = 1
    profile: bool = False
    exif: bool = False
    dpi: bool = False
    lossless: bool = False

    def __str__(self) -> str:
        extras = [name for name in ("profile", "exif", "dpi", "lossless") if getattr(self, name)]
        turned = [f"turned {self.orientation}"] if self.orientation > 1 else []
        return " ".join([self.format, self.mode, *turned, *extras])

    @property
    def becomes_rgb(self) -> bool:
        """WebP has no grey, and PNG has no grey with a profile for RGB."""
        is_grey_png = self.format == "PNG" and self.channels < 3
        return (self.format, self.mode) == ("WEBP", "L") or (is_grey_png and self.profile)

    @property
    def channels(self) -> int:
        return {"L": 1, "LA": 2, "RGB": 3, "RGBA": 4}[self.mode.partition(";")[0]]

    def samples(self) -> np.ndarray:
        y, x = np.mgrid[0:HEIGHT, 0:WIDTH]
        planes = [x * 1200, y * 1800, (x + y) * 700, 65535 - x * 1000]
        chosen = {1: [0], 2: [0, 3], 3: [0, 1, 2], 4: [0, 1, 2, 3]}[self.channels]
        samples = np.stack([planes[i] for i in chosen], axis=-1).astype(np.uint16)
        samples = samples if self.mode.endswith("16") else (samples >> 8).astype(np.uint8)
        return samples if self.channels > 1 else samples[..., 0]

    def exif_data(self) -> bytes | None:
        main = [(0x010F, 2, 6, b"Maker\0"), (0x0112, 3, 1, struct.pack("<H", self.orientation))]
        details = [(0x9003, 2, 20, b"2024:05:06 07:08:09\0"), (0x9204, 10, 1, struct.pack("<ii", -2, 0))]
        return exif_of("<", main, details if self.exif else []) if self.exif or self.orientation > 1 else None

    def file(self) -> bytes:
        options = {
            "icc_profile": SRGB if self.profile else None,
            "exif": self.exif_data(),
            "dpi": (300, 300) * self.dpi,
        }
        options = {name: value for name, value in options.items() if value}
        samples = self.samples()
        if self.format == "TIFF":
            return self._tiff(samples)
        if self.format == "HEIF":
            image, file = pillow_heif.from_pillow(Image.fromarray(samples)), io.BytesIO()
            image.save(file, quality=-1, chroma=444, matrix_coefficients=0, **options)
            return file.getvalue()
        if samples.dtype == np.uint16 and samples.ndim == 3:
            return self._png16(samples, options)
        if self.format == "WEBP":
            options |= {"lossless": True, "exact": True} if self.lossless else {"quality": 95, "exact": True}
        if self.format == "JPEG":
            options |= {"quality": 95, "subsampling": 0}
        return encoded(Image.fromarray(samples), self.format, **options)

    def _tiff(self, samples: np.ndarray) -> bytes:
        file = io.BytesIO()
        extra = [(0x0112, 3, 1, self.orientation, True), (0x010F, 2, 0, "Maker", True)]
        tifffile.imwrite(
            file, samples, photometric="rgb" if self.channels > 2 else "minisblack", metadata=None, planarconfig=1,
            extrasamples=["unassalpha"] if self.channels in (2, 4) else None, extratags=extra,
            resolution=(300, 300) if self.dpi else None, iccprofile=SRGB if self.profile else None,
        )  # fmt: skip
        return file.getvalue()

    def _png16(self, samples: np.ndarray, options: dict) -> bytes:
        import cv2

        swapped = samples[..., [2, 1, 0, 3][: self.channels]]
        data = cv2.imencode(".png", swapped)[1].tobytes()
        chunks = [(b"eXIf", options["exif"][6:])] if "exif" in options else []
        chunks += [(b"iCCP", b"x\0\0" + zlib.compress(SRGB))] if self.profile else []
        return png_with(data, *chunks, *([(b"pHYs", struct.pack(">IIB", 11811, 11811, 1))] if self.dpi else []))


ALL = {"profile": True, "exif": True, "dpi": True}
CASES = [
    *(Case(form, mode, **ALL) for form in ("JPEG", "PNG", "TIFF", "WEBP") for mode in ("L", "RGB")),
    *(Case(form, mode) for form in ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "JPEG2000") for mode in ("L", "RGB")),
    *(Case(form, mode, **ALL) for form in ("PNG", "TIFF") for mode in ("LA", "RGBA", "RGBA;16")),
    *(Case(form, mode) for form in ("PNG", "TIFF") for mode in ("L;16", "RGB;16")),
    *(Case("TIFF", mode, **ALL) for mode in ("L;16", "RGB;16")),
    *(Case("PNG", mode, exif=True, dpi=True) for mode in ("L;16", "RGB;16")),
    *(Case("WEBP", mode, lossless=True, **ALL) for mode in ("RGB", "RGBA")),
    *(Case("WEBP", mode, lossless=True) for mode in ("RGB", "RGBA")),
    Case("WEBP", "RGBA"),
    *(Case(form, "RGB", orientation, exif=True) for form in ("JPEG", "WEBP") for orientation in range(2, 9)),
    *(Case(form, "RGB;16", orientation) for form in ("TIFF", "PNG") for orientation in (3, 6)),
    *(Case("HEIF", mode, profile=True, exif=True) for mode in ("RGB", "RGBA")),
    *(Case(form, "RGB") for form in ("GIF", "PPM", "AVIF")),
]  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    """What a round trip changed: the largest and the mean difference in steps of 8 bits, and whether the rest stays."""

    written: str
    largest: float
    mean: float
    mode: bool
    profile: bool
    exif: bool
    resolution: bool


def round_trip(case: Case, folder: Path, identity: Dehazer) -> Outcome:
    """Restore a file by a model that changes nothing, in the format that it came in, and compare the two."""
    suffixes = {"JPEG": ".jpg", "TIFF": ".tif", "WEBP": ".webp", "BMP": ".bmp", "PPM": ".ppm", "GIF": ".gif"}
    source = folder / f"photo{suffixes.get(case.format, '.png' if case.format == 'PNG' else '.bin')}"
    source.write_bytes(case.file())
    before = read_photo(source)
    written = identity(source).save(folder / output_name(source.name, before))
    after = read_photo(written)
    assert after.pixels.shape == before.pixels.shape
    assert (before.pixels.shape[0] == WIDTH) == (case.orientation > 4)
    step = 257 if before.pixels.dtype == np.uint16 else 1
    difference = np.abs(after.pixels / step - before.pixels / step)
    if before.alpha is not None:
        np.testing.assert_array_equal(after.alpha, before.alpha)
    said = {place: value for place, value in fields(before.exif).items()}
    says = fields(after.exif)
    resolution = after.metadata.resolution or before.metadata.resolution
    return Outcome(
        written=written.suffix,
        largest=float(difference.max()),
        mean=float(difference.mean()),
        mode=after.mode == before.mode or case.becomes_rgb,
        profile=after.icc_profile == before.icc_profile,
        exif=all(says.get(place) == value for place, value in said.items()),
        resolution=before.metadata.resolution is None or np.allclose(resolution, before.metadata.resolution, atol=0.01),
    )


@pytest.fixture(scope="module")
def identity() -> Dehazer:
    return dehaze.load("identity", device="cpu")


def test_there_are_sixty_cases():
    assert len({str(case) for case in CASES}) == len(CASES) >= 60


@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_model_that_changes_nothing_changes_nothing(tmp_path, case, identity):
    outcome = round_trip(case, tmp_path, identity)
    largest, mean = (0, 0) if case.lossless else LOSSY.get(case.format, (0, 0))
    assert outcome.largest <= largest and outcome.mean <= mean, outcome
    assert outcome.mode and outcome.profile and outcome.exif and outcome.resolution, outcome


@pytest.mark.parametrize("case", CASES, ids=str)
def test_what_is_read_is_what_was_made(case):
    photo, source = read_photo(case.file()), case.samples()
    if case.format in ("PNG", "TIFF", "BMP", "PPM") and case.orientation == 1:
        np.testing.assert_array_equal(photo.pixels[..., 0], source if source.ndim == 2 else source[..., 0])
    assert photo.icc_profile == (SRGB if case.profile else None)
    assert ("Exif", 0x9204) in fields(photo.exif) or not case.exif or case.format == "TIFF"
    if case.dpi and case.format != "WEBP":
        assert photo.metadata.resolution == pytest.approx((300, 300), abs=0.01)
