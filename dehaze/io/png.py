"""The chunks of a PNG file beside its pixels.

Pillow is given the chunks that it needs to decode, and no other: it refuses a file for a long text or profile, and
unpacks what nobody asks for.
"""

import io
import struct
import zlib
from bisect import bisect_right
from contextlib import suppress
from itertools import accumulate
from typing import BinaryIO, NamedTuple

SIGNATURE = b"\x89PNG\r\n\x1a\n"
XMP_KEYWORD = b"XML:com.adobe.xmp"
_DECODED = {b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"}
MARKS = (b"cICP", b"gAMA", b"cHRM", b"sRGB", b"mDCV", b"cLLI")  # of colour, in the order in which they are written
_TEXTS = {b"tEXt", b"zTXt", b"iTXt"}
_READ = {*MARKS, *_TEXTS, b"iCCP", b"eXIf", b"pHYs", b"acTL", b"CgBI"}
_MAX_OTHERS = 5000  # chunks that hold no pixels
_MIN_CHUNK = 100  # bytes that a chunk with pixels has on average
MAX_UNPACKED = 32_000_000  # bytes of a profile or text


class Chunks(NamedTuple):
    """Where the chunks lie that are decoded, as offsets and lengths, and the others of interest: names and data."""

    decoded: list[tuple[int, int]]
    others: list[tuple[bytes, bytes]]

    def first(self, name: bytes) -> bytes | None:
        return next((data for found, data in self.others if found == name), None)


def read_chunks(file: BinaryIO) -> Chunks:
    """List the chunks of a PNG file; what follows its end or is cut off counts as decoded. Raises ValueError."""
    size = file.seek(0, io.SEEK_END)
    decoded, others = [(0, len(SIGNATURE))], []
    at, count, pixels = len(SIGNATURE), 0, 0
    while at < size:
        file.seek(at)
        head = file.read(8)
        length, name = int.from_bytes(head[:4], "big"), head[4:]
        end = at + 12 + length
        if name in _DECODED or len(head) < 8 or end > size:
            pixels += name == b"IDAT"
            start, before = decoded[-1]
            if start + before == at:
                decoded[-1] = start, end - start
            else:
                decoded.append((at, end - at))
        else:
            count += 1
            if name in _READ:
                others.append((name, file.read(length)))
        if count > _MAX_OTHERS or pixels > _MAX_OTHERS + size // _MIN_CHUNK:
            raise ValueError("it has too many chunks")
        if name == b"IEND":
            break
        at = end
    return Chunks(decoded, others)


class Parts(io.RawIOBase):
    """Some ranges of a file as a file."""

    def __init__(self, file: BinaryIO, ranges: list[tuple[int, int]]):
        self._file, self._ranges, self._at = file, ranges, 0
        self._ends = list(accumulate(length for _, length in ranges))
        self._size = self._ends[-1]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = max(0, offset + (0, self._at, self._size)[whence])
        return self._at

    def tell(self) -> int:
        return self._at

    def read(self, size: int = -1) -> bytes:
        found, left = [], self._size - self._at if size < 0 else size
        number = bisect_right(self._ends, self._at)
        while left > 0 and number < len(self._ranges):
            start, length = self._ranges[number]
            skip = self._at - (self._ends[number] - length)
            self._file.seek(start + skip)
            part = self._file.read(min(length - skip, left))
            found.append(part)
            left -= len(part)
            self._at += len(part)
            if len(part) < length - skip:
                break
            number += 1
        return b"".join(found)


def unpacked(data: bytes) -> bytes:
    """Decompress data. Raises ValueError if it is damaged, or unpacks to more than `MAX_UNPACKED` bytes."""
    worker = zlib.decompressobj()
    try:
        whole = worker.decompress(data, MAX_UNPACKED)
    except zlib.error as error:
        raise ValueError(str(error)) from error
    if not worker.eof and worker.unconsumed_tail:
        raise ValueError(f"it unpacks to more than {MAX_UNPACKED / 1e6:g} MB")
    return whole


def profile(data: bytes) -> bytes:
    """Return the ICC profile in an iCCP chunk. Raises ValueError."""
    _, _, rest = data.partition(b"\0")
    return unpacked(rest[1:])


def text(name: bytes, data: bytes) -> bytes:
    """Return the text of a chunk without its keyword. Raises ValueError."""
    _, _, rest = data.partition(b"\0")
    if name == b"tEXt":
        return rest
    if name == b"zTXt":
        return unpacked(rest[1:])
    body = rest[2:].split(b"\0", 2)[-1]
    return unpacked(body) if rest[:1] == b"\1" else body


def as_text(keyword: bytes, value: bytes) -> tuple[bytes, bytes]:
    """Return a chunk that holds a text; one of UTF-8 is marked as such, any other counts as Latin-1."""
    with suppress(UnicodeDecodeError):
        if not value.decode().isascii():
            return b"iTXt", keyword + bytes(5) + value
    return b"tEXt", keyword + b"\0" + value


def raw_profile(value: bytes) -> bytes:
    """Return the bytes of a "Raw profile", which ImageMagick writes as a text of hex digits. Raises ValueError."""
    _, _, length, digits = value.split(b"\n", 3)
    return bytes.fromhex(digits.decode("latin-1"))[: int(length)]


def as_raw_profile(kind: bytes, data: bytes) -> tuple[bytes, bytes]:
    """Return a chunk that holds bytes as a "Raw profile"."""
    digits = data.hex().encode()
    lines = b"\n".join(digits[i : i + 72] for i in range(0, len(digits), 72))
    return b"zTXt", b"Raw profile type %b\0\0" % kind + zlib.compress(b"\n%b\n%8d\n%b\n" % (kind, len(data), lines))


def with_chunks(data: bytes, chunks: list[tuple[bytes, bytes]]) -> bytes:
    """Return a PNG file with more chunks behind its header."""
    end = len(SIGNATURE) + 25
    return b"".join([data[:end], *(_chunk(name, body) for name, body in chunks), data[end:]])


def _chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
