"""TIFF files that Pillow reads wrongly or not at all: other depths than 8 bits, numbers with a point, planes.

Pillow and libtiff undo the compression: they are given the file with a directory that says that its rows are bytes.
"""

import io
import shutil
import struct
from typing import BinaryIO, NamedTuple

import numpy as np
from PIL import Image

from dehaze.errors import ImageError
from dehaze.io import colour, exif
from dehaze.io.headers import own_size_limit

_MAGIC = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
_BY_BYTES = {1, 5, 8, 32773, 32946, 34925, 50000}  # compressions that know nothing of samples: LZW, Deflate, …
_BY_LIBTIFF = {*_BY_BYTES, 2, 3, 4, 6, 7, 32771, 32809}  # and those that know: CCITT, JPEG, …
_CHANNELS = {0: 1, 1: 1, 2: 3, 5: 4, 8: 3, 9: 3}  # of colour, by photometric interpretation
_MIN_IS_WHITE, _CMYK, _CIELAB, _ICCLAB = 0, 5, 8, 9
_CAMERA_RAW = {32803, 34892}  # photometric interpretations: a mosaic of colour filters, linear raw
_MAX_DIRECTORIES = 200
_MAX_SAMPLES = 16  # of a pixel
_MAX_BYTES = 1_000_000_000  # of samples, unpacked
_ROWS_AT_ONCE = 128


class Tiff(NamedTuple):
    """A TIFF file and the directory of its photograph: the first that is no reduced copy of another."""

    structure: exif.Structure
    offset: int
    fields: dict[int, exif.Field]
    pictures: int  # in the file, reduced copies and masks aside
    camera_raw: bool

    def numbers(self, tag: int, *default: int) -> tuple[int, ...]:
        return self.structure.numbers(self.fields.get(tag), default)

    @property
    def photometric(self) -> int:
        """The photometric interpretation; where a file does not state it, RGB or min-is-black by the samples."""
        return self.number(262, 2 if self.number(277, 1) > 2 else 1)

    def number(self, tag: int, default: int = 0) -> int:
        return self.numbers(tag, default)[0]

    def data(self, tag: int) -> bytes | None:
        return self.structure.data(self.fields[tag]) if tag in self.fields else None

    @property
    def bits(self) -> int:
        """Bits a sample; 0 where they differ."""
        found = set(self.numbers(258, 1))
        return found.pop() if len(found) == 1 else 0

    @property
    def is_float(self) -> bool:
        return self.number(339, 1) == 3

    @property
    def is_signed(self) -> bool:
        return 2 in self.numbers(339, 1) and self.photometric != _CIELAB  # whose a* and b* always are


def read(file: BinaryIO) -> Tiff | None:
    """Read the directories of a TIFF file; None if it is none."""
    file.seek(0)
    if file.read(4) not in _MAGIC:
        return None
    try:
        structure = exif.Structure(file)
        following, seen, found = structure.first, set(), []
        while following and following not in seen and len(seen) < _MAX_DIRECTORIES:
            seen.add(following)
            directory = structure.directory(following)
            found.append(directory)
            following = directory.next
        main = list(found)
        for directory in main[:2]:
            pointers = directory.fields.get(330)
            for offset in structure.numbers(pointers)[:_MAX_SAMPLES] if pointers and pointers.count < 1000 else ():
                if offset not in seen:
                    seen.add(offset)
                    found.append(structure.directory(offset))
    except (ValueError, struct.error):
        if not (found := locals().get("found")):
            return None
        main = found

    def number(directory: exif.Directory, tag: int) -> int:
        return structure.numbers(directory.fields.get(tag), (0,))[0]

    camera_raw = 50706 in found[0].fields or any(number(each, 262) in _CAMERA_RAW for each in found)
    whole = [each for each in found if 256 in each.fields and not number(each, 254) & 5]
    chosen = next(iter(whole), found[0])
    pictures = sum(each in whole for each in main)
    # A maker's own tags tell a raw file whose mosaic is no better described.
    camera_raw = camera_raw or (number(found[0], 254) & 1 == 1 and 330 in found[0].fields and 271 in found[0].fields)
    return Tiff(structure, chosen.offset, chosen.fields, pictures, camera_raw)


def is_unusual(tiff: Tiff) -> bool:
    """Return whether Pillow would read the samples wrongly, or not at all."""
    if tiff.photometric not in _CHANNELS:
        return False
    many_planes = tiff.number(284, 1) == 2 and tiff.bits > 8
    not_first = tiff.offset != tiff.structure.first
    white_alpha = tiff.photometric == _MIN_IS_WHITE and tiff.number(277, 1) > 1
    icc_lab = tiff.photometric == _ICCLAB
    odd_depth = tiff.bits not in (0, 1, 2, 4, 8, 32) and tiff.bits <= 16
    return tiff.is_float or odd_depth or many_planes or not_first or white_alpha or icc_lab


def refuse_unread(tiff: Tiff, subject: object) -> None:
    """Refuse what Pillow would take for unsigned, or for damaged. Raises ImageError."""
    if tiff.is_signed:
        raise ImageError(
            f"holds signed samples of {max(tiff.numbers(258, 1))} bits, which are not read.",
            "Save it as RGB or grey of 8 or 16 unsigned bits.",
            subject=subject,
        )
    if tiff.number(259, 1) not in _BY_LIBTIFF:
        raise unknown_kind(tiff, subject)


def size(tiff: Tiff) -> tuple[int, int]:
    return tiff.number(256), tiff.number(257)


def decode(tiff: Tiff, file: BinaryIO, subject: object) -> tuple[np.ndarray, list[str]]:
    """Decode the photograph, not yet upright; return H×W×C of uint8 or uint16, and notes. Raises ImageError.

    C is 1 (grey), 2 (grey and alpha), 3 (RGB) or 4 (RGBA).
    """
    kind, channels = tiff.photometric, _CHANNELS.get(tiff.photometric, 0)
    count, bits = tiff.number(277, 1), tiff.bits
    known_depth = bits in (16, 32, 64) if tiff.is_float else 1 <= bits <= 16
    if not channels or not channels <= count <= _MAX_SAMPLES or not known_depth or tiff.number(259, 1) not in _BY_BYTES:
        raise unknown_kind(tiff, subject)
    if (held := tiff.number(256) * tiff.number(257) * count * bits // 8) > _MAX_BYTES:
        raise ImageError(f"holds {held / 1e9:.1f} GB of samples.", "Save it with 16 bits a sample.", subject=subject)
    samples = _samples(tiff, file, count, bits)
    samples = from_unit_range(samples, subject) if tiff.is_float else of_full_range(samples, bits)
    top = np.iinfo(samples.dtype).max
    extra, notes = list(tiff.numbers(338)), []
    if count == channels + 1 and not extra:
        extra = [2]  # some programs forget to say that it is alpha
    alpha, associated = None, False
    for i, meaning in enumerate(extra[: count - channels]):
        if meaning in (1, 2, 999) and alpha is None:
            alpha, associated = samples[..., channels + i], meaning == 1
    if count - channels > (alpha is not None):
        notes.append("It holds further channels, which are left out.")
    painted = samples[..., :channels]
    if kind == _MIN_IS_WHITE:
        painted = top - painted
    elif kind in (_CIELAB, _ICCLAB):
        painted = _from_lab(painted, signed=kind == _CIELAB)
        painted = painted if samples.dtype == np.uint16 else (painted // 257).astype(np.uint8)
    elif kind == _CMYK:
        painted, alpha = _from_cmyk(painted, tiff.data(34675)), None if alpha is None else _to_8(alpha)
        notes.append("Its colours were converted from CMYK at 8 bits.")
    if alpha is not None:
        if associated:
            painted = unassociated(painted, alpha)
        painted = np.concatenate([painted, alpha[..., None]], axis=2)
    return painted, notes


def unknown_kind(tiff: Tiff, subject: object) -> ImageError:
    """Return an error that names the kind of a TIFF file."""
    kind = f"photometric interpretation {tiff.photometric}, {'×'.join(map(str, tiff.numbers(258, 1)[:8]))} bits"
    kind += ", floating point" if tiff.is_float else ""
    return ImageError(
        f"is a TIFF file of a kind that is not read ({kind}, compression {tiff.number(259, 1)}).",
        "Save it as RGB or grey of 8 or 16 bits.",
        subject=subject,
    )


def unassociated(colours: np.ndarray, alpha: np.ndarray) -> np.ndarray:
    """Divide premultiplied colours H×W×C by their alpha H×W; where this is 0, they become 0."""
    top = np.iinfo(colours.dtype).max
    result = np.empty_like(colours)
    for start in range(0, len(colours), _ROWS_AT_ONCE):  # bounds the wider copies
        rows = slice(start, start + _ROWS_AT_ONCE)
        weight = alpha[rows, :, None].astype(np.uint32)
        result[rows] = np.minimum((colours[rows].astype(np.uint32) * top + weight // 2) // np.maximum(weight, 1), top)
        result[rows] *= weight > 0
    return result


def _samples(tiff: Tiff, file: BinaryIO, count: int, bits: int) -> np.ndarray:
    """Return the numbers H×W×count as they stand in the file."""
    if tiff.number(284, 1) == 1:
        return _plane(tiff, file, count, bits, 0)
    return np.concatenate([_plane(tiff, file, 1, bits, i) for i in range(count)], axis=2)


def _plane(tiff: Tiff, file: BinaryIO, count: int, bits: int, plane: int) -> np.ndarray:
    width, height = size(tiff)
    across = tiff.number(322) or width  # of a tile, or of a strip
    tiles = -(-width // across)
    row = -(-across * count * bits // 8)  # bytes
    stored = tiff.number(259, 1) == 1 and tiff.number(266, 1) == 1
    read = _stored if stored else _decompressed
    rows = read(tiff, file, tiles, row, height, plane).reshape(height, tiles, row)
    numbers = _unpacked(rows, bits, tiff, across * count).reshape(height, tiles, across, count)
    if tiff.number(317, 1) == 2 and bits in (8, 16):
        numbers = np.cumsum(numbers, axis=2, dtype=numbers.dtype)
    return numbers.reshape(height, tiles * across, count)[:, :width]


def _parts(tiff: Tiff, tiles: int, height: int, plane: int) -> tuple[int, slice]:
    """Return the rows in a strip or tile, and which strips or tiles a plane has."""
    rows = min(tiff.number(323) if 322 in tiff.fields else tiff.number(278, height), height)
    count = tiles * -(-height // max(rows, 1))
    if rows < 1 or (not {324, 325} <= tiff.fields.keys() and not {273, 279} <= tiff.fields.keys()):
        raise ValueError("it does not say where its pixels are")
    return rows, slice(plane * count, (plane + 1) * count)


def _stored(tiff: Tiff, file: BinaryIO, tiles: int, row: int, height: int, plane: int) -> np.ndarray:
    """Read uncompressed rows."""
    tiled = 322 in tiff.fields
    deep, parts = _parts(tiff, tiles, height, plane)
    result = np.zeros((height, tiles * row), np.uint8)
    for i, offset in enumerate(tiff.numbers(324 if tiled else 273)[parts]):
        top, left = i // tiles * deep, i % tiles * row
        rows = min(deep, height - top)
        file.seek(offset)
        data = file.read(rows * row)
        if len(data) < rows * row:
            raise ValueError("its pixels end too early")
        result[top : top + rows, left : left + row] = np.frombuffer(data, np.uint8).reshape(rows, row)
    return result


def _decompressed(tiff: Tiff, file: BinaryIO, tiles: int, row: int, height: int, plane: int) -> np.ndarray:
    """Decompress the file as if its rows were bytes."""
    order, big, tiled = tiff.structure.order, tiff.structure.big, 322 in tiff.fields
    deep, parts = _parts(tiff, tiles, height, plane)
    fields = {256: tiles * row, 257: height, 258: 8, 259: tiff.number(259, 1), 262: 1, 277: 1, 284: 1}
    fields |= {266: tiff.number(266, 1)} | ({322: row, 323: tiff.number(323)} if tiled else {278: deep})
    one = order + ("HHQQ" if big else "HHII")
    entries = {tag: struct.pack(one, tag, 16 if big else 4, 1, value) for tag, value in fields.items()}
    whole = io.BytesIO()
    file.seek(0)
    shutil.copyfileobj(file, whole, 1 << 20)
    for tag in (324, 325) if tiled else (273, 279):
        field = tiff.fields[tag]
        each = field.size // field.count
        found = tiff.structure.data(field)[parts.start * each : parts.stop * each]
        where = found.ljust(8 if big else 4, b"\0")
        if len(where) > (8 if big else 4):
            where = struct.pack(order + ("Q" if big else "I"), _append(whole, found))
        entries[tag] = struct.pack(order + ("HHQ" if big else "HHI"), tag, field.kind, len(found) // each) + where
    listed = b"".join(entries[tag] for tag in sorted(entries))
    first = _append(whole, struct.pack(order + ("Q" if big else "H"), len(entries)) + listed + bytes(8))
    whole.seek(8 if big else 4)
    whole.write(struct.pack(order + ("Q" if big else "I"), first))
    with own_size_limit():
        image = Image.open(whole, formats=["TIFF"])
        image.load_prepare()
    image.load()
    whole.close()  # room for the copy
    return np.asarray(image)


def _append(file: io.BytesIO, data: bytes) -> int:
    """Append data at an even offset; return this."""
    at = file.seek(0, io.SEEK_END)
    file.write(bytes(at % 2) + data)
    return at + at % 2


def _unpacked(rows: np.ndarray, bits: int, tiff: Tiff, numbers: int) -> np.ndarray:
    """Read numbers of some bits out of bytes H×tiles×row."""
    height, tiles, row = rows.shape
    if tiff.is_float and tiff.number(317, 1) == 3:
        stride = tiff.number(277, 1) if tiff.number(284, 1) == 1 else 1
        rows = np.cumsum(rows.reshape(height, tiles, row // stride, stride), axis=2, dtype=np.uint8)
        rows = rows.reshape(height, tiles, bits // 8, numbers).swapaxes(2, 3)
        return np.ascontiguousarray(rows).view(f">f{bits // 8}")[..., 0].astype(np.float32)
    if bits in (8, 16, 32, 64):
        kind = "f" if tiff.is_float else "u"
        found = np.ascontiguousarray(rows).view(f"{tiff.structure.order}{kind}{bits // 8}")
        return found.astype(np.float32 if tiff.is_float else f"u{bits // 8}", copy=False)
    result = np.empty((height, tiles, numbers), np.uint16)
    for start in range(0, height, _ROWS_AT_ONCE):  # a bit takes a byte meanwhile
        part = slice(start, start + _ROWS_AT_ONCE)
        single = np.unpackbits(rows[part], axis=2)[..., : numbers * bits].reshape(-1, tiles, numbers, bits)
        wide = np.zeros((*single.shape[:3], 16), np.uint8)
        wide[..., 16 - bits :] = single
        result[part] = np.packbits(wide, axis=3).view(">u2")[..., 0]
    return result


def of_full_range(samples: np.ndarray, bits: int) -> np.ndarray:
    """Scale numbers of some bits, up to 16, to the full range of 8 or 16 bits."""
    if bits in (8, 16):
        return samples
    top = 255 if bits < 8 else 65535
    table = np.rint(np.arange(2**bits) * (top / (2**bits - 1))).astype(np.uint8 if bits < 8 else np.uint16)
    return table[samples]


def from_unit_range(values: np.ndarray, subject: object) -> np.ndarray:
    """Scale floats in [0, 1] to 16 bits. Raises ImageError for others."""
    low, high = values.min(), values.max()
    if not (low >= 0 and high <= 1):  # NaN fails this too
        held = "values that are not numbers (NaN)" if np.isnan(low) else f"float values from {low:g} to {high:g}"
        raise ImageError(f"holds {held}.", "Rescale them to [0, 1].", subject=subject)
    result = np.empty(values.shape, np.uint16)
    for start in range(0, len(values), _ROWS_AT_ONCE):
        rows = slice(start, start + _ROWS_AT_ONCE)
        result[rows] = np.rint(np.multiply(values[rows], 65535, dtype=np.float32))
    return result


def _from_lab(samples: np.ndarray, signed: bool) -> np.ndarray:
    result = np.empty(samples.shape, np.uint16)
    deep = samples.dtype == np.uint16
    for start in range(0, len(samples), _ROWS_AT_ONCE):
        rows = samples[start : start + _ROWS_AT_ONCE]
        around = (
            rows[..., 1:].view(np.int16 if deep else np.int8)
            if signed
            else rows[..., 1:].astype(np.int32) - (32768 if deep else 128)
        )
        lightness = rows[..., :1] * np.float32(100 / (65535 if deep else 255))
        around = around.astype(np.float32) / (256 if deep else 1)
        result[start : start + _ROWS_AT_ONCE] = colour.lab_to_srgb(np.concatenate([lightness, around], axis=2))
    return result


def _from_cmyk(samples: np.ndarray, profile: bytes | None) -> np.ndarray:
    image = Image.fromarray(np.ascontiguousarray(_to_8(samples)), "CMYK")
    return np.asarray((profile and colour.to_srgb(image, profile)) or image.convert("RGB"))


def _to_8(samples: np.ndarray) -> np.ndarray:
    return samples if samples.dtype == np.uint8 else ((samples.astype(np.uint32) + 128) // 257).astype(np.uint8)
