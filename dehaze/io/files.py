"""Open only regular files, write files atomically, remove what killed runs left unfinished."""

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
except ImportError:  # Windows needs no lock: it deletes no file that is open
    fcntl = None

_UNFINISHED_NAME = ".dehaze-{}.tmp"  # in the folder of the file that it will become
_OTHER_KINDS = {  # reason and advice by kind
    stat.S_IFDIR: ("is a folder, not a photograph.", "Give the files in it."),
    stat.S_IFIFO: ("is a named pipe, not a file.", "Write its output to a file, and give that."),
    stat.S_IFSOCK: ("is a socket, not a file.", "Give a photograph."),
    stat.S_IFCHR: ("is a device, not a file.", "Give a photograph."),
    stat.S_IFBLK: ("is a device, not a file.", "Give a photograph."),
}
# Names under which macOS, Windows, and the network storage of Synology and QNAP keep thumbnails, settings and deleted
# files, in lower case.
_SYSTEM_NAMES = {
    *("__macosx", "@eadir", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "$recycle.bin", "lost+found"),
    *("system volume information", "thumbs.db", "ehthumbs.db", "desktop.ini"),
}


def is_hidden(name: str) -> bool:
    """Return whether a file or folder is hidden, or is one that a system keeps for itself."""
    return name.startswith(".") or name.lower() in _SYSTEM_NAMES


def open_file(path: Path) -> BinaryIO:
    """Open a regular file for reading, without ever waiting for a named pipe.

    Raises ImageError if the file does not exist, cannot be read, or is of another kind.
    """
    try:
        return open(path, "rb", opener=_open_regular)
    except (FileNotFoundError, NotADirectoryError, ValueError) as error:
        raise ImageError("does not exist.", "Check its name and folder.", subject=path) from error
    except OSError as error:
        raise ImageError(
            f"cannot be opened: {system_reason(error)}.", "Check its name and permissions.", subject=path
        ) from error


def _open_regular(path: str, flags: int) -> int:
    _refuse_other_kinds(path, os.stat(path))  # before opening, which starts some devices
    file = os.open(path, flags | getattr(os, "O_NONBLOCK", 0))
    try:
        _refuse_other_kinds(path, os.fstat(file))  # another file may have taken its place
    except ImageError:
        os.close(file)
        raise
    return file


def _refuse_other_kinds(path: str, found: os.stat_result) -> None:
    if not stat.S_ISREG(found.st_mode):
        reason, advice = _OTHER_KINDS.get(stat.S_IFMT(found.st_mode), ("is not a file.", "Give a photograph."))
        raise ImageError(reason, advice, subject=Path(path))


def write_whole(path: Path, data: bytes) -> None:
    """Write a file atomically and durably. Raises OutputError."""
    with whole_file(path) as file:
        file.write(data)


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """Open a file beside the target, and rename it to the target once it is written, durably. Raises OutputError."""
    try:
        with _unfinished(path.parent) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # else a power cut can leave an empty file under the new name
            if fcntl is None:  # Windows renames no file that is open
                file.close()
            os.replace(file.name, path)
    except (OSError, ValueError) as error:
        raise OutputError(
            f"cannot be written: {system_reason(error)}.",
            "Check that its folder exists, its permissions and the free space.",
            subject=path,
        ) from error


@contextmanager
def _unfinished(folder: Path) -> Iterator[BinaryIO]:
    """Create a file that is locked while it is written, and removed afterwards unless it was renamed."""
    while True:
        path = folder / _UNFINISHED_NAME.format(uuid.uuid4().hex)
        try:
            with path.open("xb") as file:
                if fcntl is not None:
                    with suppress(OSError):  # some file systems have no locks
                        fcntl.flock(file, fcntl.LOCK_EX)
                if path.exists():  # `remove_abandoned` may have removed it before it was locked
                    yield file
                    return
        finally:
            path.unlink(missing_ok=True)


def remove_abandoned(folder: Path) -> None:
    """Remove the unfinished files that killed runs left in a folder.

    A file that another process still writes is locked and stays. The system drops a lock when its process ends.
    """
    for path in folder.glob(_UNFINISHED_NAME.format("*")):
        with suppress(OSError):  # locked, or somebody else's
            if fcntl is None:
                path.unlink()
                continue
            with path.open("r+b") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                path.unlink()


def system_reason(error: Exception) -> str:
    """Return the message of the operating system, or of the exception if the system gave none."""
    return getattr(error, "strerror", None) or str(error)
