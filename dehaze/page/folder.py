"""The files of a page's visitors: one temporary folder a process, swept by age, and gone with the process."""

import atexit
import errno
import logging
import os
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from threading import Event, Thread
from typing import IO

from filelock import FileLock, Timeout

from dehaze.errors import DehazeError

FULL = "The server's disk is full. Nothing was lost; try again later."
_PREFIX, _LOCK = "dehaze-page-", "lock"
_STARTING_SECONDS = 60  # for which a folder may have no lock yet
_UPLOAD_SECONDS = 120  # without a byte; then an upload that has no name yet is broken
_SETTINGS = ("GRADIO_TEMP_DIR", "TMPDIR")  # where gradio, this process and its children put temporary files


class PageFolder:
    """The temporary folder of one process.

    `served` holds what was uploaded and what is served, `private` all other temporary files. A lock shows that the
    process lives; a folder whose process is gone, however it ended, is removed by the next one.
    """

    def __init__(self) -> None:
        base = Path(os.environ.get("GRADIO_TEMP_DIR") or tempfile.gettempdir())
        base.mkdir(parents=True, exist_ok=True)
        for other in base.glob(f"{_PREFIX}*"):
            _remove_if_abandoned(other)
        self.path = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=base))
        self._lock = FileLock(self.path / _LOCK)
        self._lock.acquire()
        self.served, self.private = self.path / "served", self.path / "private"
        self.served.mkdir()
        self.private.mkdir()
        self._closed = Event()

    def open(self) -> None:
        """Have temporary files made here until `close`, which the end of the process calls at the latest."""
        self._before = {name: os.environ.get(name) for name in _SETTINGS}, tempfile.tempdir
        os.environ.update(zip(_SETTINGS, (str(self.served), str(self.private)), strict=True))
        tempfile.tempdir = str(self.private)
        atexit.register(self.close)

    def close(self) -> None:
        """Remove all files."""
        if self._closed.is_set():
            return
        self._closed.set()
        settings, tempfile.tempdir = self._before
        for name, value in settings.items():
            os.environ.pop(name, None) if value is None else os.environ.update({name: value})
        self._lock.release()
        shutil.rmtree(self.path, ignore_errors=True)
        atexit.unregister(self.close)

    @asynccontextmanager
    async def until_closed(self) -> AsyncIterator[None]:
        """Close the folder at the end of the context: a server's lifespan."""
        try:
            yield
        finally:
            self.close()

    def sweep(self, seconds: float) -> None:
        """Remove the files that nobody has changed for some seconds, broken uploads earlier, and empty folders."""
        now = time.time()
        for folder in (self.served, self.private):
            for parent, _, names in os.walk(folder, topdown=False):
                for path in (Path(parent, name) for name in names):
                    broken = path.parent == self.served and path.name.startswith("tmp")
                    with suppress(OSError):
                        if path.lstat().st_ctime <= now - (_UPLOAD_SECONDS if broken else seconds):
                            path.unlink()
                with suppress(OSError):
                    if Path(parent) != folder and Path(parent).lstat().st_ctime <= now - seconds:
                        os.rmdir(parent)  # if it is empty

    def remove_broken_uploads(self) -> None:
        """Remove the uploads without a name that no request holds open, where the system tells which these are."""
        try:
            opened = {os.readlink(entry.path) for entry in os.scandir("/proc/self/fd") if entry.is_symlink()}
        except OSError:
            return  # `sweep` removes them by age
        for path in self.served.glob("tmp*"):
            if path.is_file() and str(path.resolve()) not in opened:
                path.unlink(missing_ok=True)

    def keep_swept(self, seconds: float, every: float) -> None:
        """Sweep in the background until the folder is closed."""

        def run() -> None:
            while not self._closed.wait(every):
                self.sweep(seconds)

        Thread(target=run, name="sweeper", daemon=True).start()

    def holds(self, path: str) -> bool:
        """Tell whether a path is a file among those that are served.

        It must lie there as it is written and when links are followed, and be a regular file: what /proc names leads
        there as well, to what another visitor is reading.
        """
        written = os.path.normpath(path)
        if not os.path.isabs(path) or "\0" in path or written != path or not self._inside(Path(written)):
            return False
        try:
            resolved = Path(written).resolve(strict=True)
        except (OSError, RuntimeError, ValueError):
            return False
        return resolved == self._resolved / Path(written).relative_to(self.served) and resolved.is_file()

    def _inside(self, path: Path) -> bool:
        return path != self.served and path.is_relative_to(self.served)

    @property
    def _resolved(self) -> Path:
        return self.served.resolve()


def _remove_if_abandoned(folder: Path) -> None:
    lock = FileLock(folder / _LOCK)
    try:
        if not Path(lock.lock_file).exists() and folder.stat().st_mtime > time.time() - _STARTING_SECONDS:
            return
        lock.acquire(timeout=0)
    except (Timeout, OSError):  # its process lives, or it is another user's
        return
    lock.release()
    shutil.rmtree(folder, ignore_errors=True)


def reserve(file: IO[bytes], size: int, start: int = 0) -> None:
    """Take the room on disk for `size` bytes of a file from `start` on. Raises OSError if there is none.

    Where a file is mapped into memory, the system kills a process that writes to it without room.
    """
    if size and hasattr(os, "posix_fallocate"):  # not on macOS and Windows
        os.posix_fallocate(file.fileno(), start, size)


def disk_is_full(error: BaseException | None) -> bool:
    """Tell whether an error, or what caused it, is a full disk."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        error = error.__cause__ or error.__context__
    return False


@contextmanager
def full_disk_explained() -> Iterator[None]:
    """Turn the errors of a full disk into a DehazeError for visitors."""
    try:
        yield
    except Exception as error:
        if not disk_is_full(error):
            raise
        logging.getLogger(__name__).warning("The temporary folder is full: %s", error)
        raise DehazeError(FULL) from None
