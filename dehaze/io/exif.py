"""EXIF data as bytes: fields are kept, changed or left out where they stand; no value is decoded.

EXIF is the structure of a TIFF file: directories of fields, which hold values or point at them. Values stay at their
offsets wherever possible, since the notes of camera makers hold offsets that only the makers know.
"""

import io
import struct
from collections.abc import Iterable
from typing import IO, NamedTuple

from PIL import ExifTags

PREFIX = b"Exif\0\0"
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8, 129: 1}
_INTEGERS = {1: "B", 3: "H", 4: "I", 13: "I", 16: "Q", 18: "Q"}
_MAX_FIELDS = 4000  # of a directory
_MAX_BYTES = 16_000_000  # of all values that are taken from a file

ORIENTATION, EXIF, GPS, INTEROP = 0x112, 0x8769, 0x8825, 0xA005
_MAKER_NOTE = 0x927C
_MAX_GAP = 32_000  # bytes before the maker note, so that it stays at its offset
_WIDTHS, _HEIGHTS = (256, 40962), (257, 40963)  # of the image, by the first directory and by EXIF
_STRIPS_AND_THUMBNAIL = {273, 279, 288, 289, 322, 323, 324, 325, 330, 513, 514}
# What describes the strips and samples of a TIFF file, and what is kept apart: XMP, IPTC, Photoshop's, ICC.
LAYOUT = {254, 255, *range(256, 260), *range(262, 267), 273, *range(277, 282), 284, *range(288, 294), 301, 317, 320}
LAYOUT |= {*range(321, 348), *range(512, 522), *range(529, 533), 700, 33421, 33422, 33723, 34377, 34675, 37724}


class Field(NamedTuple):
    """A field of a directory: tag, type and count, the offsets of its entry and its value, the size of this."""

    tag: int
    kind: int
    count: int
    entry: int
    value: int
    size: int


class Value(NamedTuple):
    """A field apart from any file; `data` has the byte order of the structure that it is for."""

    tag: int
    kind: int
    count: int
    data: bytes


class Directory(NamedTuple):
    """The sound fields of a directory, the tags of the broken ones, and the offset of the next directory, or 0."""

    offset: int
    fields: dict[int, Field]
    broken: list[tuple[int, int]]  # tag and place of the entry
    entries: int
    next: int


class Structure:
    """The directories of a TIFF file, a BigTIFF file, or EXIF data. Raises ValueError if it is none."""

    def __init__(self, file: IO[bytes]):
        self._file = file
        self.size = file.seek(0, io.SEEK_END)
        head = self.read(0, 16)
        if head[:2] not in (b"II", b"MM") or len(head) < 8:
            raise ValueError("it has no TIFF structure")
        self.order = "<" if head[:2] == b"II" else ">"
        self.big = struct.unpack(f"{self.order}H", head[2:4])[0] == 43
        if self.big and len(head) < 16:
            raise ValueError("its TIFF structure is cut short")
        self.first = struct.unpack(f"{self.order}{'Q' if self.big else 'I'}", head[8:16] if self.big else head[4:8])[0]

    def read(self, at: int, size: int) -> bytes:
        """Return bytes; fewer at the end of the file."""
        if not 0 <= at < self.size:
            return b""
        self._file.seek(at)
        return self._file.read(size)

    def directory(self, offset: int) -> Directory:
        """Read a directory. Raises ValueError if it is none."""
        count_format, entry_format, inline = ("Q", "HHQ8s", 8) if self.big else ("H", "HHI4s", 4)
        start, step = struct.calcsize(f"={count_format}"), struct.calcsize(f"={entry_format}")
        head = self.read(offset, start)
        if len(head) < start or offset < 8:
            raise ValueError("a directory of its metadata is missing")
        (count,) = struct.unpack(self.order + count_format, head)
        entries = self.read(offset + start, step * min(count, _MAX_FIELDS))
        fields: dict[int, Field] = {}
        broken: list[tuple[int, int]] = []
        whole = len(entries) // step
        for i in range(whole):
            place = offset + start + i * step
            tag, kind, number, _ = struct.unpack_from(self.order + entry_format, entries, i * step)
            size = _SIZES.get(kind, 0) * number
            value = place + step - inline
            if size > inline:
                value = struct.unpack_from(f"{self.order}{'Q' if self.big else 'I'}", entries, (i + 1) * step - inline)[
                    0
                ]
            if kind not in _SIZES or value + size > self.size or tag in fields:
                broken.append((tag, place))
            else:
                fields[tag] = Field(tag, kind, number, place, value, size)
        after = self.read(offset + start + whole * step, inline) if whole == count else b""
        following = int.from_bytes(after, "little" if self.order == "<" else "big") if len(after) == inline else 0
        return Directory(offset, fields, broken, whole, following)

    def data(self, field: Field) -> bytes:
        """Return the bytes of a value."""
        return self.read(field.value, field.size)

    def numbers(self, field: Field | None, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Return the integers of a field, or the default where there are none."""
        if field is None or field.kind not in _INTEGERS or field.count == 0:
            return default
        return struct.unpack(f"{self.order}{field.count}{_INTEGERS[field.kind]}", self.data(field))


def orientation(exif: bytes | None) -> int | None:
    """Return the orientation, 1 to 8, or None where the EXIF data does not say."""
    try:
        structure = Structure(io.BytesIO((exif or b"").removeprefix(PREFIX)))
        found = structure.numbers(structure.directory(structure.first).fields.get(ORIENTATION))
    except ValueError:
        return None
    return found[0] if len(found) == 1 and 1 <= found[0] <= 8 else None


def says_adobe_rgb(exif: bytes | None) -> bool:
    """Return whether a camera marked the colours as Adobe RGB: InteropIndex R03."""
    try:
        structure = Structure(io.BytesIO((exif or b"").removeprefix(PREFIX)))
        fields = structure.directory(structure.first).fields
        for pointer in (EXIF, INTEROP):
            fields = structure.directory(structure.numbers(fields.get(pointer), (0,))[0]).fields
        return 1 in fields and structure.data(fields[1])[:3] == b"R03"
    except ValueError:
        return False


def tidy(exif: bytes, width: int, height: int) -> tuple[bytes | None, list[str]]:
    """Make EXIF data hold for upright pixels of a size; return it, and the names of what was broken and left out.

    The orientation becomes 1, and the thumbnail goes, since it shows the photograph before. All else stays as it is.
    """
    data = bytearray(exif.removeprefix(PREFIX))
    structure = Structure(io.BytesIO(bytes(data)))
    directories, broken = _directories(structure)
    names = [_name(tag, parent) for parent, tag, _ in broken]
    number = {1: "B", 3: "H", 4: "I"}
    removed: list[int] = []
    for parent, directory in directories.items():
        for tag, new in [(ORIENTATION, 1), *((tag, width) for tag in _WIDTHS), *((tag, height) for tag in _HEIGHTS)]:
            field = directory.fields.get(tag)
            if field is None or parent not in (0, EXIF):
                continue
            if field.count == 1 and field.kind in number and new < 256 ** _SIZES[field.kind]:
                struct.pack_into(structure.order + number[field.kind], data, field.value, new)
            else:
                removed.append(field.entry)
    main = directories[0]
    removed += [field.entry for tag, field in main.fields.items() if tag in _STRIPS_AND_THUMBNAIL]
    gone = {*removed, *(entry for _, _, entry in broken)}
    _drop_thumbnail(data, structure, directories, gone)
    for directory in directories.values():
        _remove_entries(data, structure.order, directory, gone)
    if all(field.entry in gone for field in main.fields.values()):
        return None, names
    return PREFIX + bytes(data), names


def _directories(structure: Structure) -> tuple[dict[int, Directory], list[tuple[int, int, int]]]:
    """Return the directories by the tag that points at them (0: the first), and the broken: directory, tag, entry."""
    directories = {0: structure.directory(structure.first)}
    broken = [(0, tag, entry) for tag, entry in directories[0].broken]
    for parent, pointer in ((0, EXIF), (0, GPS), (EXIF, INTEROP)):
        field = directories[parent].fields.get(pointer) if parent in directories else None
        if field is None:
            continue
        try:
            (offset,) = structure.numbers(field)
            if offset in [directory.offset for directory in directories.values()]:
                raise ValueError
            directories[pointer] = structure.directory(offset)
            broken += [(pointer, tag, entry) for tag, entry in directories[pointer].broken]
        except ValueError:
            broken.append((parent, pointer, field.entry))
    return directories, broken


def _remove_entries(data: bytearray, order: str, directory: Directory, gone: set[int]) -> None:
    """Close the gaps of entries in a directory, and end it: no directory follows, as that is the thumbnail's."""
    start = directory.offset + 2
    entries = [bytes(data[at : at + 12]) for at in range(start, start + 12 * directory.entries, 12) if at not in gone]
    struct.pack_into(f"{order}H", data, directory.offset, len(entries))
    packed = b"".join(entries) + bytes(4)
    data[start : start + len(packed)] = packed[: len(data) - start] if len(packed) > len(data) - start else packed


def _drop_thumbnail(data: bytearray, structure: Structure, directories: dict[int, Directory], gone: set[int]) -> None:
    """Blank the thumbnail, or cut it off where nothing that is kept follows it."""
    try:
        second = structure.directory(directories[0].next)
        (start,) = structure.numbers(second.fields.get(513))
        (length,) = structure.numbers(second.fields.get(514))
    except ValueError:
        return
    kept = [(each.offset, each.offset + 2 + 12 * each.entries + 4) for each in directories.values()]
    for each in directories.values():
        kept += [(field.value, field.value + field.size) for field in each.fields.values() if field.entry not in gone]
    end, stop = max(stop for _, stop in kept), min(start + length, len(data))
    if start >= end:
        del data[(second.offset if second.offset >= end else start) :]
    elif all(stop <= low or start >= high for low, high in kept):
        data[start:stop] = bytes(max(0, stop - start))


def gather(
    structure: Structure, offset: int, layout: Iterable[int] = LAYOUT
) -> tuple[dict[int, list[Value]], list[str]]:
    """Take the fields that describe a photograph; return them by directory, and the names of the broken ones."""
    left, values = _MAX_BYTES, {}
    directories, broken = _directories(_At(structure, offset))
    names = [_name(tag, parent) for parent, tag, _ in broken if tag not in layout]
    for pointer, directory in directories.items():
        values[pointer] = []
        for tag, field in directory.fields.items():
            is_layout = pointer == 0 and tag in layout
            is_of_bigtiff = field.kind in (16, 17, 18)
            if is_layout or is_of_bigtiff or tag in (EXIF, GPS, INTEROP):
                continue
            if field.size > left:
                names.append(_name(tag, pointer))
                continue
            left -= field.size
            values[pointer].append(Value(tag, field.kind, field.count, structure.data(field)))
    return values, names


class _At(Structure):
    """The same file with another directory for its first."""

    def __init__(self, structure: Structure, first: int):
        self.__dict__.update(structure.__dict__)
        self.first = first


def build(order: str, values: dict[int, list[Value]], note_at: int = 0) -> bytes | None:
    """Write EXIF data of fields by directory; the maker note stays at the offset `note_at` where there is room."""
    data = bytearray((b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 8))
    fields = {pointer: list(found) for pointer, found in values.items()}
    places: dict[bytes, int] = {}
    for value in fields.get(EXIF, []):
        if value.tag == _MAKER_NOTE and 8 < note_at <= _MAX_GAP:
            data += bytes(note_at - len(data))
            places[value.data] = note_at
            data += value.data
    for pointer, parent in ((INTEROP, EXIF), (EXIF, 0), (GPS, 0), (0, None)):
        if not fields.get(pointer):
            continue
        at = _append_directory(data, order, fields[pointer], places)
        if parent is None:
            struct.pack_into(f"{order}I", data, 4, at)
            return PREFIX + bytes(data)
        fields.setdefault(parent, []).append(Value(pointer, 4, 1, struct.pack(f"{order}I", at)))
    return None


def _append_directory(data: bytearray, order: str, values: list[Value], places: dict[bytes, int]) -> int:
    """Append a directory and its values; return its offset."""
    data += bytes(len(data) % 2)
    offset = len(data)
    values = sorted(values, key=lambda value: value.tag)
    data += struct.pack(f"{order}H", len(values)) + bytes(12 * len(values) + 4)
    for i, (tag, kind, count, value) in enumerate(values):
        if len(value) <= 4:
            where = value.ljust(4, b"\0")
        elif value in places:
            where = struct.pack(f"{order}I", places[value])
        else:
            data += bytes(len(data) % 2)
            where = struct.pack(f"{order}I", len(data))
            data += value
        struct.pack_into(f"{order}HHI4s", data, offset + 2 + 12 * i, tag, kind, count, where)
    return offset


def from_tiff(structure: Structure, offset: int, width: int, height: int) -> tuple[bytes | None, list[str]]:
    """Make EXIF data of a directory of a TIFF file, for upright pixels of a size; return it, and what was broken."""
    values, names = gather(structure, offset)
    directories, _ = _directories(_At(structure, offset))
    maker = directories[EXIF].fields.get(_MAKER_NOTE) if EXIF in directories else None
    note = maker.value if maker else 0
    whole = build(structure.order, values, note)
    return (None, names) if whole is None else (tidy(whole, width, height)[0], names)


def within(exif: bytes | None, limit: int) -> tuple[bytes | None, list[str]]:
    """Leave out the largest fields of EXIF data until it has at most `limit` bytes; return it, and their names."""
    names: list[str] = []
    while exif is not None and len(exif) > limit:
        structure = Structure(io.BytesIO(exif.removeprefix(PREFIX)))
        values, _ = gather(structure, structure.first, layout=())
        if names:
            pointer, largest = max(
                ((pointer, value) for pointer, found in values.items() for value in found),
                key=lambda pair: len(pair[1].data),
            )
            values[pointer].remove(largest)
            names.append(_name(largest.tag, pointer))
        else:
            names.append("")  # at first only the room between the fields goes
        exif = build(structure.order, values)
    return exif, names[1:]


def with_values(exif: bytes | None, values: list[Value], without: Iterable[int] = ()) -> tuple[bytearray, str]:
    """Return a TIFF structure whose first directory holds the fields of EXIF data and `values`, and its byte order.

    All offsets of the EXIF data hold in it. `without` lists tags that are left out. The byte order of `values` is
    that of `order_of` the EXIF data.
    """
    order = order_of(exif)
    data = bytearray(exif.removeprefix(PREFIX)) if exif else bytearray(b"II*\0\x08\0\0\0")
    entries: dict[int, bytes] = {}
    if exif:
        structure = Structure(io.BytesIO(bytes(data)))
        fields = structure.directory(structure.first).fields
        entries = {tag: bytes(data[f.entry : f.entry + 12]) for tag, f in fields.items() if tag not in {*without}}
    data += bytes(len(data) % 2)
    places: dict[int, int] = {}
    for value in values:
        if len(value.data) > 4:
            places[value.tag] = len(data)
            data += value.data + bytes(len(value.data) % 2)
    for tag, kind, count, value in values:
        where = struct.pack(f"{order}I", places[tag]) if tag in places else value.ljust(4, b"\0")
        entries[tag] = struct.pack(f"{order}HHI4s", tag, kind, count, where)
    struct.pack_into(f"{order}I", data, 4, len(data))
    data += struct.pack(f"{order}H", len(entries)) + b"".join(entries[tag] for tag in sorted(entries)) + bytes(4)
    return data, order


def order_of(exif: bytes | None) -> str:
    """Return the byte order of EXIF data as `struct` writes it; little-endian where there is none."""
    return ">" if exif and exif.removeprefix(PREFIX)[:2] == b"MM" else "<"


def has(exif: bytes | None, tag: int) -> bool:
    """Return whether the first directory has a field."""
    try:
        structure = Structure(io.BytesIO((exif or b"").removeprefix(PREFIX)))
        return tag in structure.directory(structure.first).fields
    except ValueError:
        return False


def _name(tag: int, directory: int) -> str:
    names = ExifTags.GPSTAGS if directory == GPS else ExifTags.TAGS
    return names.get(tag, f"tag {tag:#06x}")
