"""Decode files, Pillow images and arrays of any kind to upright samples of 8 or 16 bits."""

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from PIL import ExifTags, Image, ImageCms, ImageFile

from dehaze.errors import ImageError
from dehaze.io import deep
from dehaze.io.headers import HeaderFile, bounded_directories

# Pillow opens more formats, but PostScript would run Ghostscript on a stranger's file.
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "AVIF", "JPEG2000", "PPM", "HEIF")
# Tags that describe the photograph. The other tags describe the old file (strips, thumbnail, size, orientation).
_KEPT_TAGS = frozenset(
    ExifTags.Base[name]
    for name in (
        *("ImageDescription", "Make", "Model", "Software", "HostComputer", "DateTime", "Artist", "Copyright"),
        *("XResolution", "YResolution", "ResolutionUnit", "Rating", "RatingPercent"),
        *("XPTitle", "XPComment", "XPAuthor", "XPKeywords", "XPSubject"),
    )
)

_SCAN = b"\xff\xda"  # the marker before each scan of a JPEG file; within a scan it cannot occur
_MAX_SCANS = 50  # encoders write some 10


class Decoded(NamedTuple):
    """Upright samples, and the metadata that still hold for them."""

    samples: np.ndarray  # H×W grey or H×W×C (grey and alpha, RGB, RGBA), uint8 or uint16
    icc_profile: bytes | None = None
    exif: bytes | None = None


def decode_file(file: BinaryIO, subject: object, max_megapixels: float) -> Decoded:
    """Decode the first image of a file. Raises ImageError about `subject`."""
    with _refuse_damage(subject):
        image = _open(file, subject)
        _check_size(*image.size, subject, max_megapixels)
        _check_size(*_tile_size(image), subject, max_megapixels)
        if image.format in ("JPEG", "MPO"):
            _check_scans(file, subject)
        if not deep.is_colour16(image):
            return _with_metadata(_samples(image, subject), image)
        samples = deep.decode_colour16(image, lambda: _open(file, subject), subject)
        return _with_metadata(_with_keyed_alpha(samples, image), image)


class Header(NamedTuple):
    """Width and height in px, and the format as Pillow names it."""

    width: int
    height: int
    format: str


def read_header(file: BinaryIO, subject: object) -> Header:
    """Read the header of a file; nothing is decoded. Raises ImageError."""
    with _refuse_damage(subject):
        image = _open(file, subject)
        return Header(*image.size, image.format or "")


def decode_pillow(image: Image.Image, max_megapixels: float) -> Decoded:
    """Decode the current frame of a Pillow image of any mode. Raises ImageError."""
    subject = "The image"
    _check_size(*image.size, subject, max_megapixels)
    with _refuse_damage(subject):
        return _with_metadata(_samples(image, subject), image)


def decode_array(array: np.ndarray, max_megapixels: float) -> Decoded:
    """Decode an array H×W, H×W×3 or H×W×4 of uint8, uint16, or float in [0, 1], which becomes uint16.

    Raises ImageError.
    """
    subject = "The array"
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError(f"has the shape {array.shape}.", "Give H×W, H×W×3 or H×W×4, channels last.", subject=subject)
    _check_size(array.shape[1], array.shape[0], subject, max_megapixels)
    if array.dtype.kind == "f":
        return Decoded(_from_unit_range(array, subject))
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise ImageError(f"has the type {array.dtype}.", "Give uint8, uint16, or float in [0, 1].", subject=subject)
    return Decoded(array.astype(array.dtype.newbyteorder("="), copy=False))


@contextmanager
def _refuse_damage(subject: object) -> Iterator[None]:
    try:
        with bounded_directories():
            yield
    except (ImageError, MemoryError):
        raise
    except Image.UnidentifiedImageError as error:
        raise ImageError(
            "is not an image in a supported format, whatever its name says, or its beginning is damaged.",
            "Give a whole JPEG, PNG, TIFF or WebP file.",
            subject=subject,
        ) from error
    except Exception as error:  # decoders raise every kind of exception on damaged files
        raise ImageError(
            f"is damaged or cut short ({error}).", "Copy or download it again.", subject=subject
        ) from error


def _check_scans(file: BinaryIO, subject: object) -> None:
    """Refuse a progressive JPEG file of many scans: each makes the decoder go over all pixels once more."""
    file.seek(0)
    scans, before = 0, b""
    while block := file.read(1 << 20):
        scans += (before + block).count(_SCAN)
        before = block[-1:]
    if scans > _MAX_SCANS:
        raise ImageError(
            f"has {scans} scans, and the limit is {_MAX_SCANS}.", "Save it again in a photo editor.", subject=subject
        )


def _check_size(width: int, height: int, subject: object, max_megapixels: float) -> None:
    if width == 0 or height == 0:
        raise ImageError(f"has no pixels ({width}×{height}).", "Give one of at least 1×1.", subject=subject)
    megapixels = width * height / 1e6
    if megapixels > max_megapixels:
        raise ImageError(
            f"has {megapixels:.1f} megapixels ({width}×{height}), and the limit is {max_megapixels:g}.",
            "Make it smaller.",
            setting="Or raise max_megapixels.",
            subject=subject,
        )


def _tile_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height of the tiles of a TIFF file, which may exceed the image; 1×1 if it has none."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(322, 1), tags.get(323, 1)


def _open(file: BinaryIO, subject: object) -> ImageFile.ImageFile:
    """Read the header of an image file; Pillow decodes the pixels on demand."""
    file.seek(0)
    start = file.read(64)
    if not start:
        raise ImageError("is empty.", "Copy or download it again.", subject=subject)
    if start[4:8] == b"ftyp" and re.search(rb"hei[cxms]|hev[cx]", start[8:]):
        try:
            import pillow_heif  # pyright: ignore[reportMissingImports] - the user's choice
        except ImportError:
            raise ImageError(
                "is a HEIC photograph, and the plug-in that reads these is not installed.",
                "Convert it to JPEG.",
                setting="Or install the plug-in with `pip install pillow-heif`.",
                subject=subject,
            ) from None
        pillow_heif.register_heif_opener()
    Image.init()
    header = HeaderFile(file)
    with _own_size_limit():
        image = Image.open(cast(BinaryIO, header), formats=[known for known in _FORMATS if known in Image.OPEN])
    header.end_header()
    return image


_limit_lock = threading.Lock()


@contextmanager
def _own_size_limit() -> Iterator[None]:
    """Lift Pillow's size limit while a header is read: `_check_size` follows, and its limit can be raised."""
    with _limit_lock:
        pillow_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = pillow_limit


def _samples(image: Image.Image, subject: object) -> np.ndarray:
    """Load an image and return its samples as grey or sRGB, with alpha if it has transparency."""
    image.load()
    if image.mode == "F":
        return _from_unit_range(np.asarray(image), subject)
    if image.mode.startswith("I"):
        numbers = np.asarray(image)
        if image.mode == "I" and (numbers.min() < 0 or numbers.max() > 65535):
            raise ImageError("holds 32-bit values outside 0 to 65535.", "Rescale it to 16 bits.", subject=subject)
        return _with_keyed_alpha(numbers.astype(np.uint16), image)
    if image.mode == "CMYK":
        return np.asarray(_cmyk_to_rgb(image))
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    mode += "A" if image.has_transparency_data else ""
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _from_unit_range(values: np.ndarray, subject: object) -> np.ndarray:
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # NaN fails this too
        raise ImageError(f"holds float values from {low:g} to {high:g}.", "Rescale them to [0, 1].", subject=subject)
    return np.rint(np.multiply(values, 65535, dtype=np.float32)).astype(np.uint16)


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    converted = None
    if profile := image.info.get("icc_profile"):
        with suppress(ImageCms.PyCMSError):  # the profile is damaged or is for other colours: ignore it
            converted = ImageCms.profileToProfile(
                image,
                io.BytesIO(profile),
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
    return converted or image.convert("RGB")


def _with_keyed_alpha(samples: np.ndarray, image: Image.Image) -> np.ndarray:
    """Add an alpha channel to 16-bit samples if their PNG file declares one colour transparent."""
    key = image.info.get("transparency")
    if key is None:
        return samples
    colour = samples if samples.ndim == 3 else samples[..., None]
    opaque = (colour != np.asarray(key)).any(axis=2, keepdims=True)
    return np.concatenate([colour, opaque.astype(np.uint16) * 65535], axis=2)


def _with_metadata(samples: np.ndarray, image: Image.Image) -> Decoded:
    """Turn samples upright and add the ICC profile and EXIF of the loaded image."""
    samples = _upright(samples, _orientation(image))
    icc_profile = image.info.get("icc_profile") or b""
    # A profile for CMYK does not hold for samples that were converted to RGB.
    is_grey = samples.ndim == 2 or samples.shape[2] == 2
    holds = icc_profile[16:20] in ((b"RGB ", b"GRAY") if is_grey else (b"RGB ",))
    return Decoded(samples, icc_profile if holds else None, _kept_exif(image, samples.shape[1], samples.shape[0]))


def _upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    return samples[:, ::-1] if orientation in (2, 3, 6, 7) else samples


def _orientation(image: Image.Image) -> int:
    try:
        return image.getexif().get(ExifTags.Base.Orientation, 1)
    except Exception:  # a photograph with damaged metadata can still be restored
        return 1


def _kept_exif(image: Image.Image, width: int, height: int) -> bytes | None:
    try:
        whole, kept = image.getexif(), Image.Exif()
        for tag in _KEPT_TAGS:
            if value := whole.get(tag):
                kept[tag] = value
        for directory in (ExifTags.IFD.Exif, ExifTags.IFD.GPSInfo):
            if values := dict(whole.get_ifd(directory)):
                kept[directory] = values
        details = kept.get(ExifTags.IFD.Exif, {})
        details.pop(ExifTags.IFD.Interop, None)  # an offset into the old file
        if ExifTags.Base.ExifImageWidth in details:
            details[ExifTags.Base.ExifImageWidth], details[ExifTags.Base.ExifImageHeight] = width, height
        return kept.tobytes() if len(kept) else None
    except Exception:  # a photograph with damaged metadata can still be restored
        return None
