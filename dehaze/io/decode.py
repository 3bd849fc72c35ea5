"""From files, Pillow images and arrays of any kind to upright samples in 8 or 16 bits."""

import io
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import ExifTags, Image, ImageCms

from dehaze.errors import ImageError
from dehaze.io import deep

# Pillow opens more kinds, PostScript among them by running Ghostscript: not with strangers' files.
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "AVIF", "JPEG2000", "PPM", "HEIF")
# Tags that describe the photograph. The others tell of the old file (strips, thumbnail, size, orientation) and would
# contradict the new one.
_KEPT_TAGS = frozenset(
    ExifTags.Base[name]
    for name in (
        *("ImageDescription", "Make", "Model", "Software", "HostComputer", "DateTime", "Artist", "Copyright"),
        *("XResolution", "YResolution", "ResolutionUnit", "Rating", "RatingPercent"),
        *("XPTitle", "XPComment", "XPAuthor", "XPKeywords", "XPSubject"),
    )
)


class Decoded(NamedTuple):
    """Upright samples with the metadata that still hold for them."""

    samples: np.ndarray  # H×W grey or H×W×C (grey and alpha, RGB, RGBA), uint8 or uint16
    icc_profile: bytes | None = None
    exif: bytes | None = None


def from_file(file: BinaryIO, name: str, max_megapixels: float) -> Decoded:
    """Decode the first image of a file; `name` is what errors call it. Raises ImageError."""
    with _refusing_damage(name):
        image = _open(file, name)
        _check_size(*image.size, name, max_megapixels)
        if not deep.is_colour16(image):
            return _with_metadata(_samples(image, name), image)
        samples = deep.decode(image, lambda: _open(file, name), name)
        return _with_metadata(_with_keyed_alpha(samples, image), image)


def size(file: BinaryIO, name: str) -> tuple[int, int]:
    """Return width and height as the header of a file states them; nothing is decoded. Raises ImageError."""
    with _refusing_damage(name):
        return _open(file, name).size


def from_pillow(image: Image.Image, max_megapixels: float) -> Decoded:
    """Take over a Pillow image of any mode, at its current frame. Raises ImageError."""
    name = "The image"
    _check_size(*image.size, name, max_megapixels)
    with _refusing_damage(name):
        return _with_metadata(_samples(image, name), image)


def from_array(array: np.ndarray, max_megapixels: float) -> Decoded:
    """Take over H×W, H×W×3 or H×W×4: uint8, uint16 or, becoming 16 bits, float in [0, 1]. Raises ImageError."""
    name = "The array"
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError(f"{name} has the shape {array.shape}. Give H×W, H×W×3 or H×W×4, channels last.")
    _check_size(array.shape[1], array.shape[0], name, max_megapixels)
    if array.dtype.kind == "f":
        return Decoded(_from_unit_range(array, name))
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise ImageError(f"{name} has the type {array.dtype}. Give uint8, uint16, or float in [0, 1].")
    return Decoded(array.astype(array.dtype.newbyteorder("="), copy=False))


@contextmanager
def _refusing_damage(name: str) -> Iterator[None]:
    try:
        yield
    except (ImageError, MemoryError):
        raise
    except Image.UnidentifiedImageError as error:
        raise ImageError(
            f"{name} is not an image of a kind that can be read, or is damaged from its beginning, whatever its name "
            "says. Give a whole JPEG, PNG, TIFF or WebP file."
        ) from error
    except Exception as error:  # decoders meet damaged files with every kind of exception
        raise ImageError(f"{name} is damaged or cut short ({error}). Copy or download it again.") from error


def _check_size(width: int, height: int, name: str, max_megapixels: float) -> None:
    if width == 0 or height == 0:
        raise ImageError(f"{name} has no pixels ({width}×{height}). Give one of at least 1×1.")
    megapixels = width * height / 1e6
    if megapixels > max_megapixels:
        raise ImageError(
            f"{name} has {megapixels:.1f} megapixels ({width}×{height}), and the limit is {max_megapixels:g}. "
            "Make it smaller, or raise max_megapixels."
        )


def _open(file: BinaryIO, name: str) -> Image.Image:
    """Read the header of an image file; its pixels are decoded when they are asked for."""
    file.seek(0)
    start = file.read(64)
    if not start:
        raise ImageError(f"{name} is empty. Copy or download it again.")
    if start[4:8] == b"ftyp" and re.search(rb"hei[cxms]|hev[cx]", start[8:]):
        try:
            import pillow_heif
        except ImportError:
            raise ImageError(
                f"{name} is a HEIC photograph, and the plug-in for these is not installed. "
                "Install it with `pip install pillow-heif`, or convert the photograph to JPEG."
            ) from None
        pillow_heif.register_heif_opener()
    Image.init()
    with _own_size_limit():
        return Image.open(file, formats=[known for known in _FORMATS if known in Image.OPEN])


_limit_lock = threading.Lock()


@contextmanager
def _own_size_limit() -> Iterator[None]:
    """Lift Pillow's limit while a header is read: ours, which names the size and can be raised, is checked next."""
    with _limit_lock:
        theirs, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = theirs


def _samples(image: Image.Image, name: str) -> np.ndarray:
    """Load an image and give its samples as grey or sRGB, with alpha where it has transparency."""
    image.load()
    if image.mode == "F":
        return _from_unit_range(np.asarray(image), name)
    if image.mode.startswith("I"):
        numbers = np.asarray(image)
        if image.mode == "I" and (numbers.min() < 0 or numbers.max() > 65535):
            raise ImageError(f"{name} holds 32-bit numbers beyond 0 to 65535. Rescale it to 16 bits.")
        return _with_keyed_alpha(numbers.astype(np.uint16), image)
    if image.mode == "CMYK":
        return np.asarray(_cmyk_to_rgb(image))
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    mode += "A" if image.has_transparency_data else ""
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _from_unit_range(values: np.ndarray, name: str) -> np.ndarray:
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # written so that NaN is refused too
        raise ImageError(f"{name} holds float values from {low:g} to {high:g}. Rescale them to [0, 1].")
    return np.rint(np.multiply(values, 65535, dtype=np.float32)).astype(np.uint16)


def _cmyk_to_rgb(image: Image.Image) -> Image.Image:
    profile = image.info.get("icc_profile")
    if profile:
        try:
            return ImageCms.profileToProfile(
                image,
                io.BytesIO(profile),
                ImageCms.createProfile("sRGB"),
                renderingIntent=ImageCms.Intent.RELATIVE_COLORIMETRIC,
                outputMode="RGB",
                flags=ImageCms.Flags.BLACKPOINTCOMPENSATION,
            )
        except ImageCms.PyCMSError:  # a damaged profile, or one of other colours, is as good as none
            pass
    return image.convert("RGB")


def _with_keyed_alpha(samples: np.ndarray, image: Image.Image) -> np.ndarray:
    """Add alpha to 16-bit samples whose PNG file declares one colour transparent."""
    key = image.info.get("transparency")
    if key is None:
        return samples
    colour = samples if samples.ndim == 3 else samples[..., None]
    opaque = (colour != np.asarray(key)).any(axis=2, keepdims=True)
    return np.concatenate([colour, opaque.astype(np.uint16) * 65535], axis=2)


def _with_metadata(samples: np.ndarray, image: Image.Image) -> Decoded:
    """Turn samples upright and add what the loaded image says beside them."""
    samples = _upright(samples, _orientation(image))
    icc_profile = image.info.get("icc_profile") or b""
    # Samples that are RGB by now, or were converted before they came here, are not what a CMYK profile speaks of.
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
    except Exception:  # damaged metadata must not cost the photograph
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
    except Exception:  # damaged metadata must not cost the photograph
        return None
