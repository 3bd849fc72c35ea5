"""Bound what the header of a photograph from a stranger may cost.

Pillow joins the blocks of a comment one by one, and copies a range of the file for each tag that points at it: a file
of some MB could take hours, or all memory. An honest header takes some hundred reads, and no range of it many times.
"""

import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any, cast

from PIL import Image
from PIL.TiffImagePlugin import ImageFileDirectory_v2

_MAX_READS = 5000  # of a header
_MIN_READ = 100  # bytes that a read of what follows the header has on average
_MAX_TIMES = 4  # that the bytes of a file are read: Pillow reads the first directory of a TIFF file twice
_MAX_NUMBERS = 2_000_000  # bytes of a directory's numbers, which become Python objects; tiles of 16×16 px need most
_BYTES = (1, 2, 7)  # types of tags that stay bytes: byte, text, undefined


class HeaderFile:
    """An open file that can be read a few times, and more often after `end_header`."""

    def __init__(self, file: IO[bytes]):
        self._file, start = file, file.tell()
        self._size = file.seek(0, os.SEEK_END)
        file.seek(start)
        self._allow(_MAX_READS)

    def end_header(self) -> None:
        """Let the pixels be read, in pieces of a usual size."""
        self._allow(_MAX_READS + self._size // _MIN_READ)

    def read(self, size: int = -1) -> bytes:
        """Read as the file does. Raises ValueError if too much was read."""
        left = max(0, self._size - self._file.tell())
        data = self._file.read(left if size < 0 else min(size, left))  # Python takes room for all that is asked for
        self._reads -= 1
        self._bytes -= len(data)
        if self._reads < 0 or self._bytes < 0:
            raise ValueError("its header takes too many steps to read")
        return data

    def _allow(self, reads: int) -> None:
        self._reads, self._bytes = reads, _MAX_TIMES * (self._size + 1000)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


_limit_lock = threading.Lock()


@contextmanager
def own_size_limit() -> Iterator[None]:
    """Lift Pillow's size limit while a header is read: a check with a limit that can be raised follows."""
    with _limit_lock:
        pillow_limit, Image.MAX_IMAGE_PIXELS = Image.MAX_IMAGE_PIXELS, None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = pillow_limit


_load = ImageFileDirectory_v2.load
_warnings_lock = threading.Lock()  # the filters belong to the whole program
_here = threading.local()  # `bounded` in a thread that decodes for this package


def _load_bounded(self: ImageFileDirectory_v2, fp: IO[bytes]) -> None:
    if not getattr(_here, "bounded", False):
        _load(self, fp)
        return
    with _warnings_lock, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # this package reads metadata itself, and names what is damaged
        _load(self, cast(IO[bytes], HeaderFile(fp)))
    numbers = sum(len(data) for tag, data in self._tagdata.items() if self.tagtype[tag] not in _BYTES)
    if numbers > _MAX_NUMBERS:
        raise ValueError("its metadata has too many numbers")


@contextmanager
def bounded_directories() -> Iterator[None]:
    """Bound the TIFF directories, which EXIF has too, that Pillow reads in this thread within the context.

    Pillow reads them while it opens a file and offers no limit, so its own method is wrapped. Other code of the program
    finds it as it was.
    """
    ImageFileDirectory_v2.load = _load_bounded
    before, _here.bounded = getattr(_here, "bounded", False), True
    try:
        yield
    finally:
        _here.bounded = before
