"""Files that the tests of photographs make, and what other programs say about them."""

import io
import json
import shutil
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from PIL import Image

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_POINTERS = {0x8769: "Exif", 0x8825: "GPS", 0xA005: "Interop"}


def program(name: str) -> str:
    """Return the path of a program, or skip the test."""
    path = shutil.which(name)
    if path is None:
        pytest.skip(f"{name} is not installed")
    return path


def magick(*arguments: object) -> bytes:
    """Run ImageMagick's convert, and return what it writes to stdout."""
    return subprocess.run([program("convert"), *map(str, arguments)], check=True, capture_output=True).stdout


def exiftool(*arguments: object) -> str:
    return subprocess.run(
        [program("exiftool"), *map(str, arguments)], check=True, capture_output=True, text=True
    ).stdout


def tags(path: Path, *groups: str) -> dict[str, object]:
    """Return what exiftool reads from the groups of a file, EXIF, XMP, …, as numbers and without decoding."""
    wanted = [f"-{group}:all" for group in groups]
    (found,) = json.loads(exiftool("-json", "-n", "-G1", "-a", "-u", *wanted, path))
    return {name: value for name, value in found.items() if ":" in name}


def encoded(image: Image.Image, format_name: str, **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, format_name, **options)
    return file.getvalue()


def png_chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png_with(data: bytes, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG file with more chunks behind its header."""
    return data[:33] + b"".join(png_chunk(*chunk) for chunk in chunks) + data[33:]


def png_chunks(data: bytes) -> dict[bytes, list[bytes]]:
    """Return the chunks of a PNG file, whose sums are checked."""
    found: dict[bytes, list[bytes]] = {}
    at = len(PNG_SIGNATURE)
    while at < len(data):
        (length,) = struct.unpack(">I", data[at : at + 4])
        name, body = data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        assert data[at : at + 12 + length] == png_chunk(name, body)
        found.setdefault(name, []).append(body)
        at += 12 + length
    return found


def jpeg_with(data: bytes, *segments: tuple[int, bytes]) -> bytes:
    """Return a JPEG file with more segments, marker and data, at its start."""
    extra = b"".join(b"\xff" + bytes([marker]) + struct.pack(">H", len(body) + 2) + body for marker, body in segments)
    return data[:2] + extra + data[2:]


def exif_of(
    order: str, main: list[tuple], details: list[tuple] = (), gps: list[tuple] = (), interop: list[tuple] = (),
    thumbnail: bytes = b"",
) -> bytes:  # fmt: skip
    """Write EXIF data of fields: tag, type, count and bytes; maker notes come first, as far from the front as 200."""
    data = bytearray((b"II" if order == "<" else b"MM") + struct.pack(f"{order}HI", 42, 0))

    def directory(fields: list[tuple], following: int = 0) -> int:
        places = []
        for _, _, _, value in fields:
            places.append(len(data))
            if len(value) > 4:
                data.extend(value + bytes(len(value) % 2))
        at = len(data)
        data.extend(struct.pack(f"{order}H", len(fields)))
        for (tag, kind, count, value), place in sorted(zip(fields, places, strict=True)):
            where = struct.pack(f"{order}I", place) if len(value) > 4 else value.ljust(4, b"\0")
            data.extend(struct.pack(f"{order}HHI", tag, kind, count) + where)
        data.extend(struct.pack(f"{order}I", following))
        return at

    def pointer(tag: int, at: int) -> tuple:
        return tag, 4, 1, struct.pack(f"{order}I", at)

    details, main, second = [*details], [*main], 0
    if interop:
        details.append(pointer(0xA005, directory(interop)))
    if details:
        main.append(pointer(0x8769, directory(details)))
    if gps:
        main.append(pointer(0x8825, directory(gps)))
    if thumbnail:
        start = len(data)
        data.extend(thumbnail)
        size = struct.pack(f"{order}I", len(thumbnail))
        second = directory([(513, 4, 1, struct.pack(f"{order}I", start)), (514, 4, 1, size)])
    first = directory(main, second)
    struct.pack_into(f"{order}I", data, 4, first)
    return b"Exif\0\0" + bytes(data)


def fields(exif: bytes | None) -> dict[tuple[str, int], tuple[int, int, bytes]]:
    """Return the fields of EXIF data by directory and tag: type, count and bytes, pointers aside."""
    if exif is None:
        return {}
    data = exif.removeprefix(b"Exif\0\0")
    order = "<" if data[:2] == b"II" else ">"
    found: dict[tuple[str, int], tuple[int, int, bytes]] = {}

    def read(name: str, at: int) -> int:
        (count,) = struct.unpack_from(f"{order}H", data, at)
        for i in range(count):
            tag, kind, number, place = struct.unpack_from(f"{order}HHII", data, at + 2 + 12 * i)
            size = _SIZES[kind] * number
            start = place if size > 4 else at + 10 + 12 * i
            if tag in _POINTERS:
                read(_POINTERS[tag], place)
            else:
                found[name, tag] = kind, number, data[start : start + size]
        return struct.unpack_from(f"{order}I", data, at + 2 + 12 * count)[0]

    following = read("main", struct.unpack_from(f"{order}I", data, 4)[0])
    if following:
        read("thumbnail", following)
    return found
