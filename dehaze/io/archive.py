"""Zip archives from strangers: what is in them, and reading it, without harm from bombs.

Nothing is unpacked here, so that names that climb out of a folder do no harm either.
"""

import zipfile
from pathlib import Path, PurePosixPath

from dehaze.errors import ImageError
from dehaze.io.files import is_hidden

_MAX_DIRECTORY = 1_000_000  # bytes of an archive's list of members: some 10,000 of them
_PLAIN = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # the others unpack without bound


def members(path: Path) -> list[zipfile.ZipInfo]:
    """List the files in an archive, less folders and hidden ones. Raises ImageError if it cannot be trusted."""
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - 2**16 - 22))
        tail = file.read()
    end = len(tail) - 22 if tail[-22:-18] == b"PK\x05\x06" and tail[-2:] == bytes(2) else tail.rfind(b"PK\x05\x06")
    if end < 0:
        raise ImageError(f"{path.name} is not a zip archive, or is cut short. Pack it again.")
    # The list of members is read at once, so its size is looked at before; archives of the 64-bit kind hide it.
    size, is_64_bit = int.from_bytes(tail[end + 12 : end + 16], "little"), tail[end - 20 : end - 16] == b"PK\x06\x07"
    if size > _MAX_DIRECTORY or is_64_bit:
        raise ImageError(f"{path.name} has too many members. Give an archive of images alone.")
    try:
        with zipfile.ZipFile(path) as archive:
            found = archive.infolist()
    except Exception as error:  # damaged archives are met with every kind of exception
        raise ImageError(f"{path.name} is damaged ({error}). Pack it again.") from error
    return [member for member in found if not member.is_dir() and not _hidden(member)]


def read(path: Path, member: zipfile.ZipInfo, limit: int) -> bytes:
    """Return what a member of an archive holds, whatever size it claims. Raises ImageError beyond `limit` bytes."""
    name = "".join(filter(str.isprintable, member.filename))[-100:]
    if member.flag_bits & 1:
        raise ImageError(f"{name} is encrypted. Pack the archive without a password.")
    if member.compress_type not in _PLAIN:
        raise ImageError(f"{name} is packed in a way that is not taken. Pack the archive as an ordinary zip.")
    try:
        with zipfile.ZipFile(path) as archive, archive.open(member) as file:
            data = file.read(limit + 1)
    except Exception as error:  # as above
        raise ImageError(f"{name} is damaged in the archive ({error}). Pack it again.") from error
    if len(data) > limit:
        raise ImageError(f"{name} has more than {limit / 1e6:.0f} MB. Make it smaller.")
    return data


def place(member: zipfile.ZipInfo) -> PurePosixPath:
    """Return the path that a member claims; Windows writes other slashes."""
    return PurePosixPath(member.filename.replace("\\", "/"))


def _hidden(member: zipfile.ZipInfo) -> bool:
    return any(is_hidden(part) and part != ".." for part in place(member).parts)
