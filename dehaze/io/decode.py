"""Decode files, Pillow images and arrays of any kind to upright samples of 8 or 16 bits."""

import io
import re
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import TYPE_CHECKING, BinaryIO, NamedTuple, cast

import numpy as np
from PIL import Image, ImageFile

from dehaze.errors import ImageError
from dehaze.io import colour, deep, exif, png, raw, tiff, xmp
from dehaze.io.headers import HeaderFile, bounded_directories, own_size_limit
from dehaze.io.metadata import Metadata
from dehaze.io.read_metadata import GAIN_MAP, first_of, of_image, of_png, of_tiff

if TYPE_CHECKING:
    from pillow_heif import HeifFile

# Pillow opens more formats, but PostScript would run Ghostscript on a stranger's file.
_FORMATS = ("JPEG", "PNG", "TIFF", "WEBP", "BMP", "GIF", "AVIF", "JPEG2000", "PPM")

_SCAN = b"\xff\xda"  # the marker before each scan of a JPEG file; within a scan it cannot occur
_MAX_SCANS = 50  # encoders write some 10
_HEIF = re.compile(rb"hei[cxms]|hev[cx]")


class Decoded(NamedTuple):
    """Upright samples, the metadata that still hold for them, and notes of what was not taken."""

    samples: np.ndarray  # H×W grey or H×W×C (grey and alpha, RGB, RGBA), uint8 or uint16
    metadata: Metadata = Metadata()
    notes: tuple[str, ...] = ()
    lossless: bool = False  # a WebP file without loss


def decode_file(file: BinaryIO, subject: object, max_megapixels: float) -> Decoded:
    """Decode the first image of a file. Raises ImageError about `subject`."""
    with _refuse_damage(subject):
        head = _head(file, subject)
        structure = tiff.read(file)
        if raw.is_camera_raw(head, structure):
            return _decode_raw(file, structure, subject, max_megapixels)
        if _is_heif(head):
            return _decode_heif(file, subject, max_megapixels)
        if structure:
            tiff.refuse_unread(structure, subject)
        if structure and tiff.is_unusual(structure):
            return _decode_tiff(file, structure, subject, max_megapixels)
        try:
            image = _open(file, subject)
        except Image.UnidentifiedImageError:
            if structure is None or tiff.size(structure) == (0, 0):
                raise
            return _decode_tiff(file, structure, subject, max_megapixels)
        _check_size(*image.size, subject, max_megapixels)
        _check_size(*_tile_size(image), subject, max_megapixels)
        if structure:
            metadata, notes = of_tiff(structure)
            turned = 1  # by Pillow, while it loads
        elif image.format == "PNG":
            metadata, notes = of_png(png.read_chunks(file))
            turned = _orientation(metadata)
        else:
            metadata, notes = of_image(image)
            notes += _lost_depth(file, image)
            turned = _orientation(metadata)
        if image.format in ("JPEG", "MPO"):
            _check_scans(file, subject)
        lossless = image.format == "WEBP" and _is_lossless(file)
        if image.format == "PPM" and image.mode == "RGB":
            samples = _deep_ppm(file, image)
        elif image.format == "PNG" and deep.is_colour16(image):
            samples = _with_keyed_alpha(deep.decode_colour16(image, lambda: _open(file, subject)), image)
        else:
            samples = _samples(image, subject)
        return _finish(samples, turned, metadata, notes, lossless)


class Header(NamedTuple):
    """Width and height in px, and the format as Pillow names it."""

    width: int
    height: int
    format: str


def read_header(file: BinaryIO, subject: object) -> Header:
    """Read the header of a file, whose width and height are upright; nothing is decoded. Raises ImageError."""
    with _refuse_damage(subject):
        head, structure = _head(file, subject), tiff.read(file)
        if raw.is_camera_raw(head, structure):
            return Header(*raw.measure(file, subject), "RAW")
        if _is_heif(head):
            return Header(*_open_heif(file, subject).size, "HEIF")
        if structure and tiff.is_unusual(structure):
            return _tiff_header(structure)
        try:
            image = _open(file, subject)
        except Image.UnidentifiedImageError:
            if structure is None or tiff.size(structure) == (0, 0):
                raise
            return _tiff_header(structure)
        if structure:  # Pillow turned the size
            return Header(*image.size, image.format or "")
        metadata, _ = of_png(png.read_chunks(file)) if image.format == "PNG" else of_image(image)
        return Header(*_upright_size(*image.size, _orientation(metadata)), image.format or "")


def _tiff_header(structure: tiff.Tiff) -> Header:
    return Header(*_upright_size(*tiff.size(structure), structure.number(exif.ORIENTATION, 1)), "TIFF")


def _upright_size(width: int, height: int, orientation: int) -> tuple[int, int]:
    return (height, width) if orientation in (5, 6, 7, 8) else (width, height)


def decode_pillow(image: Image.Image, max_megapixels: float) -> Decoded:
    """Decode the current frame of a Pillow image of any mode. Raises ImageError."""
    subject = "The image"
    _check_size(*image.size, subject, max_megapixels)
    with _refuse_damage(subject):
        samples = _samples(image, subject)
        metadata, notes = of_image(image)
        return _finish(samples, _orientation(metadata), metadata, notes)


def decode_array(array: np.ndarray, max_megapixels: float) -> Decoded:
    """Decode an array H×W, H×W×3 or H×W×4 of uint8, uint16, or float in [0, 1], which becomes uint16.

    Raises ImageError.
    """
    subject = "The array"
    if not (array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (3, 4))):
        raise ImageError(f"has the shape {array.shape}.", "Give H×W, H×W×3 or H×W×4, channels last.", subject=subject)
    _check_size(array.shape[1], array.shape[0], subject, max_megapixels)
    if array.dtype.kind == "f":
        return Decoded(tiff.from_unit_range(array, subject))
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
        digits = 1
        while digits < 6 and round(megapixels, digits) <= max_megapixels:  # 6 tell every pixel
            digits += 1
        raise ImageError(
            f"has {megapixels:.{digits}f} megapixels ({width}×{height}), and the limit is {max_megapixels:g}.",
            "Make it smaller.",
            setting="Or raise max_megapixels.",
            subject=subject,
        )


def _tile_size(image: Image.Image) -> tuple[int, int]:
    """Return width and height of the tiles of a TIFF file, which may exceed the image; 1×1 if it has none."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(322, 1), tags.get(323, 1)


def _head(file: BinaryIO, subject: object) -> bytes:
    file.seek(0)
    if not (start := file.read(64)):
        raise ImageError("is empty.", "Copy or download it again.", subject=subject)
    return start


def _open(file: BinaryIO, subject: object) -> ImageFile.ImageFile:
    """Read the header of an image file; Pillow decodes the pixels on demand."""
    is_png = _head(file, subject).startswith(png.SIGNATURE)
    if is_png:
        chunks = png.read_chunks(file)
        if chunks.first(b"CgBI") is not None:
            raise ImageError(
                "is a PNG file in the form of iOS applications.", "Save it as a usual PNG file.", subject=subject
            )
        file = cast(BinaryIO, png.Parts(file, chunks.decoded))
    file.seek(0)
    Image.init()
    header = HeaderFile(file)
    try:
        with own_size_limit():
            image = Image.open(cast(BinaryIO, header), formats=[known for known in _FORMATS if known in Image.OPEN])
    except Image.UnidentifiedImageError as error:
        if is_png:
            raise ValueError("a chunk before its pixels is broken") from error
        raise
    header.end_header()
    return image


def _samples(image: Image.Image, subject: object) -> np.ndarray:
    """Load an image and return its samples as grey or sRGB, with alpha if it has transparency."""
    stored_bits = {"L;2": 2, "L;4": 4}.get(deep.raw_mode(image), 8)
    image.load()
    if stored_bits < 8 and isinstance(key := image.info.get("transparency"), int):
        image.info["transparency"] = key * 255 // (2**stored_bits - 1)  # Pillow scales the samples alone
    if image.mode == "F":
        return tiff.from_unit_range(np.asarray(image), subject)
    if image.mode.startswith("I"):
        numbers = np.asarray(image)
        if image.mode == "I" and (numbers.min() < 0 or numbers.max() > 65535):
            raise ImageError("holds 32-bit values outside 0 to 65535.", "Rescale it to 16 bits.", subject=subject)
        return _with_keyed_alpha(numbers.astype(np.uint16), image)
    if image.mode == "CMYK":
        profile = image.info.get("icc_profile")
        return np.asarray((profile and colour.to_srgb(image, profile)) or image.convert("RGB"))
    mode = "L" if image.mode in ("1", "L", "LA", "La") else "RGB"
    mode += "A" if image.has_transparency_data else ""
    return np.asarray(image if image.mode == mode else image.convert(mode))


def _with_keyed_alpha(samples: np.ndarray, image: Image.Image) -> np.ndarray:
    """Add an alpha channel to 16-bit samples if their PNG file declares one colour transparent."""
    key = image.info.get("transparency")
    if key is None:
        return samples
    colours = samples if samples.ndim == 3 else samples[..., None]
    opaque = (colours != np.asarray(key)).any(axis=2, keepdims=True)
    return np.concatenate([colours, opaque.astype(np.uint16) * 65535], axis=2)


def _decode_tiff(file: BinaryIO, structure: tiff.Tiff, subject: object, max_megapixels: float) -> Decoded:
    _check_size(*tiff.size(structure), subject, max_megapixels)
    _check_size(structure.number(322, 1), structure.number(323, 1), subject, max_megapixels)
    metadata, notes = of_tiff(structure)
    samples, more = tiff.decode(structure, file, subject)
    orientation = structure.number(exif.ORIENTATION, 1)
    return _finish(samples, orientation if 1 <= orientation <= 8 else 1, metadata, [*notes, *more])


def _decode_raw(file: BinaryIO, structure: tiff.Tiff | None, subject: object, max_megapixels: float) -> Decoded:
    def check_size(width: int, height: int) -> None:
        _check_size(width, height, subject, max_megapixels)

    samples, preview = raw.develop(file, subject, check_size)
    metadata = Metadata()
    if structure:
        height, width = samples.shape[:2]
        first = structure.structure.first
        metadata = Metadata(exif=exif.from_tiff(structure.structure, first, width, height)[0])
    elif preview:
        with suppress(Exception):  # a photograph without its metadata is better than none
            metadata = replace(of_image(Image.open(io.BytesIO(preview)))[0], icc_profile=None)
    return _finish(samples, 1, metadata, ["It was developed from camera raw with the white balance of the camera."])


def _is_heif(head: bytes) -> bool:
    return head[4:8] == b"ftyp" and _HEIF.search(head[8:]) is not None


def _open_heif(file: BinaryIO, subject: object) -> "HeifFile":
    try:
        import pillow_heif
    except ImportError:  # some systems have no build of it
        raise ImageError(
            "is a HEIC photograph, and the library that reads these is not installed.",
            "Convert it to JPEG.",
            setting="Or install the library with `pip install pillow-heif`.",
            subject=subject,
        ) from None
    return pillow_heif.open_heif(file, convert_hdr_to_8bit=False)


def _decode_heif(file: BinaryIO, subject: object, max_megapixels: float) -> Decoded:
    """Decode a HEIF file; the library turns it by the file's own properties, and its EXIF orientation says no more."""
    heif = _open_heif(file, subject)
    _check_size(*heif.size, subject, max_megapixels)
    image = heif[heif.primary_index]
    samples, mode = np.asarray(image), image.mode.partition(";")[0]
    if 8 < (bits := image.info.get("bit_depth", 8)) < 16 and samples.dtype.itemsize == 2:
        samples = tiff.of_full_range(samples.astype(np.uint16) >> (16 - bits), bits)  # the library adds zeros
    if mode.endswith("a"):
        samples = np.concatenate([tiff.unassociated(samples[..., :-1], samples[..., -1]), samples[..., -1:]], axis=2)
    metadata, notes = of_image(image)
    if (code := image.info.get("nclx_profile")) and not metadata.icc_profile:
        numbers = (code["color_primaries"], code["transfer_characteristics"])
        if numbers != (1, 13) and 2 not in numbers and max(numbers) < 256:
            metadata = replace(metadata, marks={b"cICP": bytes([*numbers, 0, 1])})
    kinds = " ".join(map(str, image.info.get("aux", {})))
    if "hdrgainmap" in kinds or "tmap" in kinds:
        notes.append(GAIN_MAP)
    if image.info.get("depth_images"):
        notes.append("It holds a depth map, which is left out.")
    if len(heif) > 1:
        notes.append(first_of(len(heif), "pictures"))
    return _finish(samples, 1, metadata, notes)


def _deep_ppm(file: BinaryIO, image: ImageFile.ImageFile) -> np.ndarray:
    """Read a colour PPM file; Pillow reduces more than 8 bits to 8."""
    tile = image.tile[0]
    top = tile.args[-1] if isinstance(tile.args, tuple) else tile.args
    if tile.codec_name == "raw" or not isinstance(top, int) or top < 256:
        return np.asarray(image)
    if tile.codec_name == "ppm_plain":  # digits, which Pillow reads deep in grey files alone
        height, width = image.height, image.width * 3
        image._mode, image._size = "I", (width, height)
        image.tile = [tile._replace(extents=(0, 0, width, height), args=("L", top))]
        return np.asarray(image).astype(np.uint16).reshape(height, -1, 3)
    file.seek(tile.offset)
    data = file.read(image.width * image.height * 6)
    numbers = np.frombuffer(data, ">u2").reshape(image.height, image.width, 3)
    if top == 65535:
        return numbers.astype(np.uint16)
    table = np.rint(np.arange(65536).clip(0, top) * (65535 / top)).astype(np.uint16)
    return table[numbers]


def _lost_depth(file: BinaryIO, image: ImageFile.ImageFile) -> list[str]:
    """Note where Pillow reduces the samples of a file to 8 bits."""
    if image.format not in ("JPEG2000", "AVIF") or image.mode.startswith("I"):
        return []
    file.seek(0)
    head = file.read(1 << 16)
    if image.format == "AVIF":
        found = re.search(rb"av1C..(.)", head, re.DOTALL)
        bits = {0: 8, 0x40: 10, 0x60: 12}.get(found[1][0] & 0x60, 8) if found else 8
    else:
        found = re.search(rb"\xff\x4f\xff\x51.{38}(.)", head, re.DOTALL)  # of the first component
        bits = (found[1][0] & 0x7F) + 1 if found else 8
    return [f"It has {bits} bits a sample, of which 8 were read."] if bits > 8 else []


def _is_lossless(file: BinaryIO) -> bool:
    """Return whether the first frame of a WebP file is stored without loss."""
    size, at = file.seek(0, io.SEEK_END), 12
    while at + 8 <= size:
        file.seek(at)
        name, length = struct.unpack("<4sI", file.read(8))
        if name in (b"VP8L", b"VP8 "):
            return name == b"VP8L"
        at += 8 + 16 if name == b"ANMF" else 8 + length + length % 2
    return False


def _orientation(metadata: Metadata) -> int:
    return exif.orientation(metadata.exif) or xmp.orientation(metadata.xmp) or 1


def _finish(
    samples: np.ndarray, orientation: int, metadata: Metadata, notes: list[str], lossless: bool = False
) -> Decoded:
    """Turn samples upright, and keep of the metadata what holds for them."""
    if samples.ndim == 3 and samples.shape[2] == 1:
        samples = samples[..., 0]
    samples = _upright(samples, orientation)
    is_grey = samples.ndim == 2 or samples.shape[2] == 2
    profile = metadata.icc_profile or b""
    # A profile for CMYK does not hold for samples that were converted to RGB.
    holds = profile[16:20] in ((b"RGB ", b"GRAY") if is_grey else (b"RGB ",))
    if not profile and exif.says_adobe_rgb(metadata.exif) and not is_grey:
        profile, holds = colour.adobe_rgb(), True  # few programs know that mark
    metadata, more = replace(metadata, icc_profile=profile if holds else None).tidied(
        samples.shape[1], samples.shape[0]
    )
    return Decoded(samples, metadata, tuple([*notes, *more]), lossless)


def _upright(samples: np.ndarray, orientation: int) -> np.ndarray:
    if orientation in (5, 6, 7, 8):
        samples = samples.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        samples = samples[::-1]
    return samples[:, ::-1] if orientation in (2, 3, 6, 7) else samples
