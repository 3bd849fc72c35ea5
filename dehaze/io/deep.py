"""Read 16-bit colour in PNG files, which Pillow reduces to 8 bits, and write it in PNG and TIFF files.

Pillow's decoder handles all of such a file (inflate, filters, interlace), and keeps one byte of each sample. Two
passes, one for each byte, give the exact samples.
"""

import io
import struct
import zlib
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageFile
from PIL.PngImagePlugin import putchunk

from dehaze.io import exif
from dehaze.io.metadata import Metadata, tiff_values

# A raw mode of Pillow is the bands, then ";16" and the byte order of the samples (N: the machine's own).
_BANDS = {"LA": 2, "RGB": 3, "RGBX": 3, "RGBA": 4}
_BYTE_ORDERS = {"B": ">u2", "L": "<u2", "N": "=u2"}
_ROWS_AT_ONCE = 256


def raw_mode(image: Image.Image) -> str:
    """Return Pillow's name of the samples in the file, for an image that is opened but not loaded."""
    tiles = getattr(image, "tile", None)
    args = tiles[0].args if tiles else ""
    return str(args[0] if isinstance(args, tuple) and args else args)


def _bands_and_order(image: Image.Image) -> tuple[str, str]:
    bands, _, order = raw_mode(image).partition(";16")
    return bands, order


def is_colour16(image: Image.Image) -> bool:
    """Return whether an image, opened but not loaded, has 16-bit samples and more than one band."""
    bands, order = _bands_and_order(image)
    return bands in _BANDS and order in _BYTE_ORDERS


def decode_colour16(image: ImageFile.ImageFile, reopen: Callable[[], ImageFile.ImageFile]) -> np.ndarray:
    """Load an image that `is_colour16` and return its exact samples.

    `reopen` opens the same file once more. Returns H×W×C uint16, where C is 2 (grey and alpha), 3 (RGB) or 4 (RGBA).
    """
    bands, order = _bands_and_order(image)
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


def encode_png(samples: np.ndarray) -> bytes:
    """Encode uint16 samples H×W×C (C: 2, 3 or 4) as a 16-bit PNG file."""
    height, width, channels = samples.shape
    colour_type = {2: 4, 3: 2, 4: 6}[channels]
    file = io.BytesIO()
    file.write(b"\x89PNG\r\n\x1a\n")
    putchunk(file, b"IHDR", struct.pack(">IIBBBBB", width, height, 16, colour_type, 0, 0, 0))
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


def encode_tiff(samples: np.ndarray, metadata: Metadata) -> bytes:
    """Encode samples H×W or H×W×C (C: 2, 3 or 4) as a TIFF file, uncompressed in one strip.

    The file begins with the EXIF data as they are, and its first directory takes their fields over.
    """
    height, width = samples.shape[:2]
    channels = 1 if samples.ndim == 2 else samples.shape[2]
    order = exif.order_of(metadata.exif)
    bits, size = samples.itemsize * 8, struct.pack(f"{order}I", samples.nbytes)

    def short(tag: int, *numbers: int) -> exif.Value:
        return exif.Value(tag, 3, len(numbers), struct.pack(f"{order}{len(numbers)}H", *numbers))

    def long(tag: int, number: int) -> exif.Value:
        return exif.Value(tag, 4, 1, struct.pack(f"{order}I", number))

    layout = [long(256, width), long(257, height), short(258, *[bits] * channels), short(259, 1)]
    layout += [short(262, 1 if channels < 3 else 2), long(273, 0), short(277, channels), long(278, height)]
    layout += [exif.Value(279, 4, 1, size), short(284, 1)]
    if channels in (2, 4):
        layout.append(short(338, 2))  # alpha, not premultiplied
    values = [*layout, *tiff_values(metadata, order)]
    data, order = exif.with_values(metadata.exif, values, exif.LAYOUT)
    data += bytes(len(data) % 2)
    structure = exif.Structure(io.BytesIO(data))
    struct.pack_into(f"{order}I", data, structure.directory(structure.first).fields[273].value, len(data))
    return bytes(data) + samples.astype(f"{order}u{samples.itemsize}", order="C", copy=False).tobytes()
