"""Read zip archives from strangers safely.

No archive is unpacked to disk, so member names that climb out of a folder do no harm. Sizes are checked before and
while a member is read, so bombs do no harm either.
"""

import zipfile
from pathlib import Path, PurePosixPath

from dehaze.errors import ImageError
from dehaze.io.files import is_hidden

_MAX_DIRECTORY_BYTES = 1_000_000  # some 10,000 members
_BOUNDED_COMPRESSION = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the other methods unpack without bound


def list_members(path: Path) -> list[zipfile.ZipInfo]:
    """List the files in an archive, without folders and hidden files.

    Raises ImageError if the archive is damaged or has too many members.
    """
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2**16 - 22))
        tail = file.read()
    end = len(tail) - 22 if tail[-22:-18] == b"PK\x05\x06" and tail[-2:] == bytes(2) else tail.rfind(b"PK\x05\x06")
    if end < 0:
        raise ImageError("is not a zip archive, or is cut short.", "Pack it again.", subject=path)
    # zipfile reads the whole directory at once, so its size is checked first. A 64-bit archive hides that size.
    size, is_64_bit = int.from_bytes(tail[end + 12 : end + 16], "little"), tail[end - 20 : end - 16] == b"PK\x06\x07"
    if size > _MAX_DIRECTORY_BYTES or is_64_bit:
        raise ImageError("has too many members.", "Give an archive that holds only images.", subject=path)
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
    except Exception as error:  # zipfile raises every kind of exception on damaged archives
        raise ImageError(f"is damaged ({error}).", "Pack it again.", subject=path) from error
    return [member for member in found if not member.is_dir() and not _is_hidden(member)]


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
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
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
