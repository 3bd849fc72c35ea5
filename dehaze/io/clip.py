"""Clips in and out: frames decoded by OpenCV, and written as VP8 in a WebM file.

OpenCV comes along with the metrics. Every browser plays VP8, which needs no licence. Sound is not kept.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from dehaze.errors import VideoError

if TYPE_CHECKING:
    import cv2

MAX_SECONDS = 10
MAX_SIDE = 1920  # px; larger frames are reduced
_MAX_FRAME = 8192 * 4320  # px, looked at before a frame is decoded
_WHOLE = 0.95  # share of the stated frames or seconds that a whole clip has at least: its sound may last longer


@dataclass(frozen=True)
class Clip:
    """A clip before it is decoded: the file, width and height in px, frames in a second, and their count.

    `truncated` says that the file ends clearly before its header promises; `count` is the header's then, and else that
    of the frames in the file. `read_frames` goes as far as the file does.
    """

    path: Path
    width: int
    height: int
    rate: float
    count: int
    truncated: bool = False


def probe_clip(path: Path, max_seconds: float = MAX_SECONDS) -> Clip:
    """Read the header of a clip, and look how far it goes. Raises VideoError where it cannot be restored."""
    with path.open("rb") as file:
        start = file.read(12)
    if not start:
        raise VideoError(f"{path} is empty. Copy or download it again.")
    # By its content: behind another one may stand a playlist, which would have other files read.
    if start[4:8] != b"ftyp" and start[:4] != b"\x1aE\xdf\xa3":
        raise VideoError(f"{path} is not an MP4, MOV or WebM clip, whatever its name says. Convert it to MP4.")
    cv2 = _opencv()
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG)
    try:
        properties = (cv2.CAP_PROP_FRAME_WIDTH, cv2.CAP_PROP_FRAME_HEIGHT, cv2.CAP_PROP_FPS, cv2.CAP_PROP_FRAME_COUNT)
        width, height, rate, count = map(capture.get, properties)
    finally:
        capture.release()
    if not (width > 0 and height > 0):
        raise VideoError(
            f"{path} is damaged or cut short, or of a kind that cannot be read. Copy or download it again, or convert "
            "it to MP4 with H.264."
        )
    if not (width >= 16 and height >= 16 and width * height <= _MAX_FRAME):
        raise VideoError(f"{path} has frames of {width:.0f}×{height:.0f} pixels. Give one of 16×16 up to 8192×4320.")
    if not 1 <= rate <= 120:
        raise VideoError(f"{path} states {rate:g} frames in a second. Convert it to one with 1 to 120.")
    if count > max_seconds * rate + 1:
        raise VideoError(f"{path} lasts {count / rate:.0f} s, and the limit is {max_seconds:g} s. Cut it.")
    held, last = _held(path, max_seconds * rate)
    if held > max_seconds * rate + 1:
        raise VideoError(f"{path} lasts longer than {max_seconds:g} s. Cut it.")
    # By time, too: where frames come unevenly, the count in the header is an estimate.
    end = last * held / max(1, held - 1)
    truncated = held < _WHOLE * count and end < _WHOLE * count / rate
    return Clip(path, int(width), int(height), rate, int(count) if truncated else held, truncated)


def _held(path: Path, enough: float) -> tuple[int, float]:
    """Count the frames that a clip holds, those that edits hide as well, and return the time of the last one in s.

    Nothing is decoded, so that this takes milliseconds.
    """
    cv2 = _opencv()
    capture = cv2.VideoCapture(str(path), cv2.CAP_FFMPEG, [cv2.CAP_PROP_FORMAT, -1])
    held, last = 0, 0.0
    try:
        while held <= enough + 1 and capture.grab():
            held += 1
            last = max(last, capture.get(cv2.CAP_PROP_POS_MSEC) / 1000)
    finally:
        capture.release()
    return held, last


def read_frames(clip: Clip, max_seconds: float = MAX_SECONDS) -> Iterator[np.ndarray]:
    """Decode a clip to upright frames H×W×3 RGB, uint8, of even sides, the longer one at most MAX_SIDE.

    Raises VideoError if there is none, or more than the header stated and `max_seconds` allow.
    """
    cv2 = _opencv()
    capture = cv2.VideoCapture(str(clip.path), cv2.CAP_FFMPEG)
    try:
        index = 0
        while (read := capture.read())[0]:
            if index > max_seconds * clip.rate + 1:
                raise VideoError(f"{clip.path} lasts longer than {max_seconds:g} s. Cut it.")
            frame = read[1]
            shrink = min(1, MAX_SIDE / max(frame.shape[:2]))
            height, width = (max(2, round(side * shrink) // 2 * 2) for side in frame.shape[:2])
            if shrink < 1:
                frame = cv2.resize(frame, (width, height), interpolation=cv2.INTER_AREA)
            yield cv2.cvtColor(frame[:height, :width], cv2.COLOR_BGR2RGB)
            index += 1
    finally:
        capture.release()
    if not index and clip.truncated:
        raise VideoError(f"{clip.path} is cut short before the first of its {clip.count} frames. Download it again.")
    if not index:
        raise VideoError(f"{clip.path} holds no frame that can be read. Convert it to MP4 with H.264.")


def clip_writer(target: Path, rate: float, width: int, height: int) -> "cv2.VideoWriter":
    """Open a WebM file to write frames of a size to. Raises VideoError."""
    cv2 = _opencv()
    writer = cv2.VideoWriter(str(target), cv2.CAP_FFMPEG, cv2.VideoWriter.fourcc(*"VP80"), rate, (width, height))
    if not writer.isOpened():
        raise VideoError(f"{target} cannot be written: this OpenCV has no VP8. Install opencv-python-headless.")
    return writer


def _opencv() -> Any:
    try:
        import cv2
    except ImportError:
        raise VideoError("Clips need OpenCV: install it with `pip install opencv-python-headless`.") from None
    return cv2
