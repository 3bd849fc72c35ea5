"""Files on disk: open what is a file and nothing else, write whole or not at all, clear up after a killed run."""

import os
import stat
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from dehaze.errors import ImageError, OutputError

try:
    import fcntl
except ImportError:  # Windows deletes no file that is open: no lock is needed
    fcntl = None

_UNFINISHED = ".dehaze-{}.tmp"  # beside the file that it will become
_KINDS = {
    stat.S_IFDIR: "a folder, not a photograph. Give the files in it.",
    stat.S_IFIFO: "a named pipe, not a file. Write what comes out of it to a file, and give that.",
    stat.S_IFSOCK: "a socket, not a file. Give a photograph.",
    stat.S_IFCHR: "a device, not a file. Give a photograph.",
    stat.S_IFBLK: "a device, not a file. Give a photograph.",
}


def is_hidden(name: str) -> bool:
    """Tell whether a file or folder is a system's own: hidden, or thumbnails that a Synology names as photographs."""
    return name.startswith((".", "__MACOSX")) or name == "@eaDir"


def open_file(path: Path) -> BinaryIO:
    """Open a regular file to read. Raises ImageError that says what it is instead; never waits for a named pipe."""
    try:
        return open(path, "rb", opener=_open_regular)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise ImageError(f"There is no file {path}. Check its name and folder.") from error
    except OSError as error:
        raise ImageError(f"Cannot open {path}: {reason(error)}. Check its name and permissions.") from error


def _open_regular(path: str, flags: int) -> int:
    _refuse_other_kinds(path, os.stat(path))  # before it is opened, as that sets some devices going
    file = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    try:
        _refuse_other_kinds(path, os.fstat(file))  # it may have been exchanged in between
    except ImageError:
        os.close(file)
        raise
    return file


def _refuse_other_kinds(path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "not a file. Give a photograph.")
        raise ImageError(f"{path} is {kind}")


def write_whole(path: Path, data: bytes) -> None:
    """Write beside the target and rename, so that no reader meets and no failure leaves half a file.

    Raises OutputError.
    """
    try:
        with _unfinished(path.parent) as file:
            file.write(data)
            file.flush()
            if fcntl is None:  # Windows renames no file that is open
                file.close()
            os.replace(file.name, path)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"Cannot write {path}: {reason(error)}. Check that its folder exists, its permissions and the free space."
        ) from error


@contextmanager
def _unfinished(folder: Path) -> Iterator[BinaryIO]:
    """Create a file that is locked while it is written, and gone afterwards unless it was renamed."""
    while True:
        path = folder / _UNFINISHED.format(uuid.uuid4().hex)
        try:
            with path.open("xb") as file:
                if fcntl is not None:
                    with suppress(OSError):  # some file systems know no locks
                        fcntl.flock(file, fcntl.LOCK_EX)
                if path.exists():  # `remove_abandoned` may have come before the lock
                    yield file
                    return
        finally:
            path.unlink(missing_ok=True)


def remove_abandoned(folder: Path) -> None:
    """Remove the files that killed runs left unfinished in a folder.

    The system drops a lock with the process that held it, be it in a container or on another host; a file that
    somebody still writes is locked, and stays.
    """
    for path in folder.glob(_UNFINISHED.format("*")):
        with suppress(OSError):  # locked, or somebody else's
            if fcntl is None:
                path.unlink()
                continue
            with path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def reason(error: Exception) -> str:
    """Word what the system said."""
    return getattr(error, "strerror", None) or str(error)
