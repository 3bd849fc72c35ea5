"""Read clips with OpenCV, and write them as VP8 in WebM files, which every browser plays. Sound is dropped."""

import json
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dehaze.errors import VideoError
from dehaze.io import clip_header

if TYPE_CHECKING:
    import cv2

MAX_SECONDS = 10
MAX_SIDE = 1920  # px; larger frames are reduced
_MAX_FRAME_PIXELS = 8192 * 4320  # checked before a frame is decoded
_HEADER_SECONDS = 10  # to read a header and count frames
_MIN_WHOLE_SHARE = 0.95  # of the frames or seconds that the header states: sound may last longer than the picture


@dataclass(frozen=True)
class Clip:
    """A clip that is not decoded yet: its file, width and height in px, frames per second, and frame count.

    `truncated` is true if the file holds clearly fewer frames than its header states. `count` is then the count in the
    header, and otherwise the count in the file.
    """

    path: Path
    width: int
    height: int
    rate: float
    count: int
    truncated: bool = False


def probe_clip(path: Path, max_seconds: float = MAX_SECONDS) -> Clip:
    """Read the header of a clip and count its frames. Raises VideoError if it cannot be restored."""
    with path.open("rb") as file:
        start = file.read(12)
    if not start:
        raise VideoError("is empty.", "Copy or download it again.", subject=path)
    # The content decides: a playlist of another format could make FFmpeg read other files.
    if start[4:8] != b"ftyp" and start[:4] != b"\x1aE\xdf\xa3":
        raise VideoError("is not an MP4, MOV or WebM clip, whatever its name says.", "Convert it to MP4.", subject=path)
    header = _header(path, max_seconds)
    width, height, rate, count = (header[name] for name in ("width", "height", "rate", "count"))
    if not (width > 0 and height > 0):
        raise VideoError(
            "is damaged or cut short, or its codec is not supported.",
            "Copy or download it again, or convert it to MP4 with H.264.",
            subject=path,
        )
    if not (width >= 16 and height >= 16 and width * height <= _MAX_FRAME_PIXELS):
        raise VideoError(
            f"has frames of {width:.0f}×{height:.0f} pixels.", "Give a clip of 16×16 up to 8192×4320.", subject=path
        )
    if not 1 <= rate <= clip_header.MAX_RATE:
        raise VideoError(
            f"states {rate:g} frames per second.", "Convert it to a clip of 1 to 120 frames per second.", subject=path
        )
    if count > max_seconds * rate + 1:
        raise VideoError(f"lasts {count / rate:.0f} s, and the limit is {max_seconds:g} s.", "Cut it.", subject=path)
    held, last = int(header["held"]), header["last"]
    if held > max_seconds * rate + 1:
        raise VideoError(f"lasts longer than {max_seconds:g} s.", "Cut it.", subject=path)
    # Time is compared as well: with a variable frame rate, the count in the header is an estimate.
    end = last * held / max(1, held - 1)
    truncated = held < _MIN_WHOLE_SHARE * count and end < _MIN_WHOLE_SHARE * count / rate
    return Clip(path, int(width), int(height), rate, int(count) if truncated else held, truncated)


def _header(path: Path, max_seconds: float) -> dict[str, float]:
    """Read the header in a process of its own, whose memory and time are limited: a small file can claim gigabytes."""
    _opencv()
    program = [sys.executable, "-P", clip_header.__file__, str(path), str(max_seconds)]
    try:
        done = subprocess.run(program, capture_output=True, text=True, check=True, timeout=_HEADER_SECONDS)
        return json.loads(done.stdout.splitlines()[-1])
    except (subprocess.SubprocessError, ValueError, IndexError) as error:
        reason = "takes more memory or time to open than a clip of this length may."
        raise VideoError(reason, "Convert it to MP4 with H.264.", subject=path) from error


def read_frames(clip: Clip, max_seconds: float = MAX_SECONDS) -> Iterator[np.ndarray]:
    """Yield the frames of a clip, upright, H×W×3 RGB uint8; sides are even, the longer one at most MAX_SIDE.

    Raises VideoError if the clip holds no frame, or more than `max_seconds` allow.
    """
    cv2 = _opencv()
    capture = cv2.VideoCapture(str(clip.path), cv2.CAP_FFMPEG)
    try:
        index, shape = 0, None
        while (read := capture.read())[0]:
            if index > max_seconds * clip.rate + 1:
                raise VideoError(f"lasts longer than {max_seconds:g} s.", "Cut it.", subject=clip.path)
            frame = read[1]
            shape = shape or frame.shape
            if frame.shape != shape:
                reason = f"changes its size from {shape[1]}×{shape[0]} to {frame.shape[1]}×{frame.shape[0]} pixels."
                raise VideoError(reason, "Convert it to MP4 with H.264, in one size.", subject=clip.path)
            shrink = min(1, MAX_SIDE / max(frame.shape[:2]))
            height, width = (max(2, round(side * shrink) // 2 * 2) for side in frame.shape[:2])
            if shrink < 1:
                frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
            yield cv2.cvtColor(frame[:height, :width], cv2.COLOR_BGR2RGB)
            index += 1
    finally:
        capture.release()
    if not index and clip.truncated:
        raise VideoError(
            f"is cut short before the first of its {clip.count} frames.", "Download it again.", subject=clip.path
        )
    if not index:
        raise VideoError("holds no frame that can be read.", "Convert it to MP4 with H.264.", subject=clip.path)


def clip_writer(target: Path, rate: float, width: int, height: int) -> "cv2.VideoWriter":
    """Open a WebM file for frames of the given size. Raises VideoError."""
    cv2 = _opencv()
    writer = cv2.VideoWriter(str(target), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"VP80"), rate, (width, height))
    if not writer.isOpened():
        raise VideoError(
            "cannot be written: this OpenCV cannot encode VP8.",
            setting="Install opencv-python-headless.",
            subject=target,
        )
    return writer


def check_written(target: Path, count: int) -> None:
    """Raise VideoError if a file that a writer released holds fewer than `count` frames: OpenCV hides a full disk."""
    held, _ = clip_header.count_frames(str(target), count)
    if held < count:
        reason = f"could not be written whole: it holds {held} of {count} frames."
        raise VideoError(reason, "Make room on the disk, or try again later.", subject=target)


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise VideoError(
            "Clips need OpenCV.", setting="Install it with `pip install opencv-python-headless`."
        ) from None
    return cv2
