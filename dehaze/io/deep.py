"""Read and write 16-bit colour in PNG and TIFF files, which Pillow reduces to 8 bits.

Pillow's decoders handle all of such a file (inflate, filters, interlace, TIFF strips and compressions), and keep one
byte of each sample. Two passes, one for each byte, give the exact samples.
"""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFile
from PIL.PngImagePlugin import putchunk
from PIL.TiffImagePlugin import ImageFileDirectory_v2

from dehaze.errors import ImageError

# A raw mode of Pillow is the bands, then ";16" and the byte order of the samples (N: the machine's own).
_BANDS = {"LA": 2, "RGB": 3, "RGBX": 3, "RGBA": 4}
_BYTE_ORDERS = {"B": ">u2", "L": "<u2", "N": "=u2"}
_ROWS_AT_ONCE = 256


def _raw_mode(image: Image.Image) -> tuple[str, str]:
    """Return bands and byte order of an image that is opened but not loaded."""
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ""
    raw = args[0] if isinstance(args, tuple) and args else args
    bands, _, order = str(raw).partition(";16")
    return bands, order


def is_colour16(image: Image.Image) -> bool:
    """Return whether an image, opened but not loaded, has 16-bit samples and more than one band."""
    bands, order = _raw_mode(image)
    return _in_planes(image) or (bands in _BANDS and order in _BYTE_ORDERS)


def _in_planes(image: Image.Image) -> bool:
    """Return whether a 16-bit TIFF file stores every band in a plane of its own."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(277, 1) > 1 and tags.get(284) == 2 and max(tags.get(258, (1,))) > 8


def decode_colour16(
    image: ImageFile.ImageFile, reopen: Callable[[], ImageFile.ImageFile], subject: object
) -> np.ndarray:
    """Load an image that `is_colour16` and return its exact samples.

    `reopen` opens the same file once more. Returns H×W×C uint16, where C is 2 (grey and alpha), 3 (RGB) or 4 (RGBA).
    TIFF files come out upright, because Pillow turns them while it loads them. Raises ImageError about `subject` for a
    TIFF file with a plane for every band, which Pillow reads wrongly.
    """
    if _in_planes(image):
        raise ImageError(
            "is a 16-bit TIFF file with its colours in separate planes.",
            "Save it with interleaved channels.",
            subject=subject,
        )
    bands, order = _raw_mode(image)
    if bands == "LA":  # four bytes a pixel, like 8-bit RGBA
        both = np.ascontiguousarray(_load_as(image, "RGBA"))
        return both.view(_BYTE_ORDERS[order]).astype(np.uint16, copy=False)
    colour = slice(_BANDS[bands])  # leaves out the padding of RGBX
    first = _load_as(image, f"{bands};16B")[..., colour]  # Pillow keeps the first byte of big-endian samples,
    second = _load_as(reopen(), f"{bands};16L")[..., colour]  # and the second byte of little-endian ones
    return np.stack([first, second], axis=-1).view(_BYTE_ORDERS[order])[..., 0].astype(np.uint16, copy=False)


def _load_as(image: ImageFile.ImageFile, raw_mode: str) -> np.ndarray:
    image.tile = [
        tile._replace(args=(raw_mode, *tile.args[1:]) if isinstance(tile.args, tuple) else raw_mode)
        for tile in image.tile
    ]
    return np.asarray(image)


def encode_png(samples: np.ndarray, icc_profile: bytes | None, exif: bytes | None) -> bytes:
    """Encode uint16 samples H×W×C (C: 2, 3 or 4) as a 16-bit PNG file."""
    height, width, channels = samples.shape
    colour_type = {2: 4, 3: 2, 4: 6}[channels]
    file = io.BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n")
    putchunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
    if icc_profile:
        putchunk(file, b"iCCP", b"ICC Profile\0\0", zlib.compress(icc_profile))
    if exif:
        putchunk(file, b"eXIf", exif.removeprefix(b"Exif\0\0"))
    deflate = zlib.compressobj(3)  # low bytes are nearly noise: level 6 takes 1.5 times as long and saves 1 %
    above = np.zeros((1, width * channels * 2), np.uint8)
    for top in range(0, height, _ROWS_AT_ONCE):
        big_endian = samples[top : top + _ROWS_AT_ONCE].astype(">u2", order="C")
        rows = big_endian.reshape(len(big_endian), -1).view(np.uint8)
        filtered = np.empty((len(rows), 1 + rows.shape[1]), np.uint8)
        filtered[:, 0] = 2  # filter "Up": each byte minus the byte above it, modulo 256
        filtered[:, 1:] = np.diff(rows, axis=0, prepend=above)
        above = rows[-1:]
        putchunk(file, b"IDAT", deflate.compress(filtered.tobytes()))
    putchunk(file, b"IDAT", deflate.flush())
    putchunk(file, b"IEND")
    return file.getvalue()


def encode_tiff(samples: np.ndarray, icc_profile: bytes | None, exif: bytes | None) -> bytes:
    """Encode uint16 samples H×W×C (C: 3 or 4) as a 16-bit TIFF file, uncompressed in one strip."""
    height, width, channels = samples.shape
    directory = ImageFileDirectory_v2(prefix=b"II")
    metadata = Image.Exif()
    metadata.load(exif or b"")
    for tag, value in metadata.items():
        directory[tag] = metadata.get_ifd(tag) if tag in (0x8769, 0x8825) else value  # Exif and GPS directories
    directory[256], directory[257] = width, height
    directory[258] = (16,) * channels  # BitsPerSample
    directory[259] = 1  # Compression: none
    directory[262] = 2  # PhotometricInterpretation: RGB
    directory[273] = 0  # StripOffsets: `save` adds the length of the header and the directory
    directory[277] = channels  # SamplesPerPixel
    directory[278] = height  # RowsPerStrip
    directory[279] = samples.size * 2  # StripByteCounts
    if channels == 4:
        directory[338] = 2  # ExtraSamples: alpha, not premultiplied
    if icc_profile:
        directory[34675] = icc_profile
    file = io.BytesIO()
    directory.save(file)
    file.write(samples.astype("<u2", order="C", copy=False).data)
    return file.getvalue()
