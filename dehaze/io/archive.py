"""Read zip archives from strangers safely.

No archive is unpacked to disk, so member names that climb out of a folder do no harm. Sizes are checked before and
while a member is read, so bombs do no harm either.
"""

import io
import re
import struct
import zipfile
from pathlib import Path, PurePosixPath

from dehaze.errors import ImageError
from dehaze.io.files import is_hidden

_MAX_DIRECTORY_BYTES = 1_000_000  # some 10,000 members
_BOUNDED_COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the other methods unpack without bound
_END, _LOCATOR_64, _END_64 = b"PK\x05\x06", b"PK\x06\x07", b"PK\x06\x06"
_END_64_BYTES, _LOCATOR_64_BYTES, _END_BYTES = 56, 20, 22
_UTF_8_FLAG = 0x800
# Encodings of names, the strictest first: nearly every name is valid GBK.
_NAME_ENCODINGS = ("utf-8", "gb2312", "cp932", "gbk")
_LONE_CHARACTER = re.compile(r"[A-Za-z][^\0-\x7f](?![^\0-\x7f])|(?<![^\0-\x7f])[^\0-\x7f][A-Za-z]")


def list_members(path: Path) -> list[zipfile.ZipInfo]:
    """List the files in an archive, without folders and hidden files, and with readable names.

    Raises ImageError if the archive is damaged or has too many members.
    """
    # zipfile reads the whole directory at once, so its size is checked first.
    if _directory_bytes(path) > _MAX_DIRECTORY_BYTES:
        raise ImageError("has too many members.", "Give an archive that holds only images.", subject=path)
    try:
        with _Source(path) as source, zipfile.ZipFile(source) as archive:
            found = archive.infolist()
    except Exception as error:  # zipfile raises every kind of exception on damaged archives
        raise ImageError(f"is damaged ({error}).", "Pack it again.", subject=path) from error
    for member in found:
        member.filename = _readable(member.filename)
    return [member for member in found if not member.is_dir() and not _is_hidden(member)]


def _directory_bytes(path: Path) -> int:
    """Return the size that an archive states for its directory, in its 64-bit record if it has one."""
    with path.open("rb") as file:
        size = file.seek(0, io.SEEK_END)
        file.seek(max(0, size - 2**16 - _END_64_BYTES - _LOCATOR_64_BYTES - _END_BYTES))
        tail = file.read()
    plain = tail[-_END_BYTES:]
    end = len(tail) - _END_BYTES if plain[:4] == _END and plain[-2:] == bytes(2) else tail.rfind(_END)
    if end < 0 or len(tail) < end + _END_BYTES:
        raise ImageError("is not a zip archive, or is cut short.", "Pack it again.", subject=path)
    stated = struct.unpack_from("<I", tail, end + 12)[0]
    locator = end - _LOCATOR_64_BYTES
    record = locator - _END_64_BYTES
    if record >= 0 and tail[locator : locator + 4] == _LOCATOR_64 and tail[record : record + 4] == _END_64:
        return struct.unpack_from("<Q", tail, record + 40)[0]
    return stated


class _Source(io.BufferedReader):
    """The file of an archive, whose headers never state that names are UTF-8: zipfile fails on those that are not.

    So zipfile reads all names as code page 437, and none fails.
    """

    in_headers = True

    def __init__(self, path: Path):
        super().__init__(path.open("rb", buffering=0))

    def read(self, size: int | None = -1) -> bytes:
        data = super().read(size)
        if not self.in_headers or data[:4] not in (b"PK\x01\x02", b"PK\x03\x04"):
            return data
        headers, at = bytearray(data), 0
        while headers[at : at + 4] == b"PK\x01\x02" and at + 46 <= len(headers):
            _clear_flag(headers, at + 8)
            at += 46 + sum(struct.unpack_from("<HHH", headers, at + 28))  # name, extra field, comment
        if data[:4] == b"PK\x03\x04" and len(data) >= 8:
            _clear_flag(headers, 6)
        return bytes(headers)


def _clear_flag(headers: bytearray, at: int) -> None:
    struct.pack_into("<H", headers, at, struct.unpack_from("<H", headers, at)[0] & ~_UTF_8_FLAG)


def _readable(name: str) -> str:
    """Decode a name that was read as code page 437: UTF-8, Chinese or Japanese if its bytes are, else as it is."""
    try:
        data = name.encode("cp437")
    except UnicodeEncodeError:  # zipfile found a Unicode name in the extra field
        return name
    for encoding in _NAME_ENCODINGS:
        try:
            decoded = data.decode(encoding)
        except UnicodeDecodeError:
            continue
        # One accented letter of code page 437 and the letter after it can look like a Chinese character.
        if encoding == "utf-8" or not _LONE_CHARACTER.search(decoded):
            return decoded
    return name


def read_member(path: Path, member: zipfile.ZipInfo, limit: int) -> bytes:
    """Return the content of a member.

    Raises ImageError if it is encrypted, damaged, or longer than `limit` bytes, whatever size the archive states.
    """
    name = "".join(filter(str.isprintable, member.filename))[-100:]
    if member.flag_bits & 1:
        raise ImageError("is encrypted.", "Pack the archive without a password.", subject=name)
    if member.compress_type not in _BOUNDED_COMPRESSION:
        raise ImageError(
            "uses a compression method that is not supported.", "Pack the archive as an ordinary zip.", subject=name
        )
    try:
        with _Source(path) as source, zipfile.ZipFile(source) as archive, archive.open(member) as file:
            source.in_headers = False
            data = file.read(limit + 1)
    except Exception as error:  # as above
        raise ImageError(f"is damaged in the archive ({error}).", "Pack it again.", subject=name) from error
    if len(data) > limit:
        raise ImageError(f"has more than {limit / 1e6:.0f} MB.", "Make it smaller.", subject=name)
    return data


def member_path(member: zipfile.ZipInfo) -> PurePosixPath:
    """Return the path that the archive states for a member; archives from Windows may use backslashes."""
    return PurePosixPath(member.filename.replace("\\", "/"))


def _is_hidden(member: zipfile.ZipInfo) -> bool:
    return any(is_hidden(part) and part != ".." for part in member_path(member).parts)
