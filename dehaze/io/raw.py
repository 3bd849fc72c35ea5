"""Camera raw files: known by their content, and developed by rawpy where it is installed."""

import io
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from dehaze.errors import ImageError
from dehaze.io.tiff import Tiff

if TYPE_CHECKING:
    import rawpy

_STARTS = (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"MMOR", b"IIU\0", b"\0MRM", b"FOVb")  # RAF, ORF, RW2, MRW, X3F
_MARKS = ((4, b"ftypcrx "), (6, b"HEAPCCDR"), (8, b"CR\x02\0"), (8, b"IIII"))  # CR3, CRW, CR2, IIQ


def is_camera_raw(head: bytes, tiff: Tiff | None) -> bool:
    """Return whether a file, known by its first 64 bytes and its TIFF structure, is camera raw."""
    marked = head.startswith(_STARTS) or any(head[at : at + len(mark)] == mark for at, mark in _MARKS)
    return marked or (tiff is not None and tiff.camera_raw)


def measure(file: BinaryIO, subject: object) -> tuple[int, int]:
    """Return width and height of the photograph in px. Raises ImageError."""
    with _opened(file, subject) as raw:
        return _size(raw)


def develop(file: BinaryIO, subject: object, check_size: Callable[[int, int], None]) -> tuple[np.ndarray, bytes | None]:
    """Develop a photograph with the camera's white balance to upright sRGB, H×W×3 uint16.

    Returns it, and the JPEG preview of the file, which may hold EXIF data. Raises ImageError.
    """
    with _opened(file, subject) as raw:
        check_size(*_size(raw))
        preview = None
        with suppress(Exception):  # LibRaw raises every kind of error for a missing preview
            found = raw.extract_thumb().data
            preview = found if isinstance(found, bytes) and found[:2] == b"\xff\xd8" else None
        try:
            return raw.postprocess(use_camera_wb=True, output_bps=16), preview
        except MemoryError:
            raise
        except Exception as error:
            raise _undeveloped(error, subject) from error


def _size(raw: "rawpy.RawPy") -> tuple[int, int]:
    sizes = raw.sizes
    return (sizes.iheight, sizes.iwidth) if sizes.flip in (5, 6) else (sizes.iwidth, sizes.iheight)


def _opened(file: BinaryIO, subject: object) -> "rawpy.RawPy":
    try:
        import rawpy  # pyright: ignore[reportMissingImports] - the user's choice
    except ImportError:
        raise ImageError(
            "is a camera raw file, and the library that develops these is not installed.",
            "Develop it in a photo editor, and give the JPEG or TIFF file.",
            setting="Or install the library with `pip install rawpy`.",
            subject=subject,
        ) from None
    file.seek(0)
    try:
        return rawpy.imread(io.BytesIO(file.read()))
    except rawpy.LibRawError as error:
        raise _undeveloped(error, subject) from error


def _undeveloped(error: Exception, subject: object) -> ImageError:
    reason = error.args[0] if error.args else error
    reason = reason.decode("utf-8", "replace") if isinstance(reason, bytes) else str(reason)
    return ImageError(
        f"is a camera raw file that cannot be developed ({reason}).",
        "Develop it in a photo editor, and give the JPEG or TIFF file.",
        subject=subject,
    )
