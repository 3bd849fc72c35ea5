"""A clip restored frame by frame, with maps that change slowly, so that it does not flicker.

OpenCV reads and writes the clips and is needed for nothing else. PyAV would keep the sound, but nothing here depends on
it, while the metrics bring OpenCV along. The result is VP8 in a WebM file, which every browser plays and needs no
licence; it has no sound.
"""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from math import exp
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dehaze.dehazer import Dehazer
from dehaze.errors import VideoError

if TYPE_CHECKING:
    import cv2

MAX_SECONDS = 10
MAX_SIDE = 1920  # px; larger frames are reduced
_MAX_FRAME = 8192 * 4320  # px, looked at before a frame is decoded
_WHOLE = 0.95  # share of the stated frames or seconds that a whole clip has at least: its sound may last longer
_MAPS_PIXELS = 500_000  # of the reduced copy that the maps are predicted on
_MEMORY = 0.3  # s that the maps' past counts for, where the picture rests
_MOTION = 0.08  # change of a pixel, in [0,1], that frees its map from the past


@dataclass(frozen=True)
class Clip:
    """A clip before it is decoded: the file, width and height in px, frames in a second, and their count.

    `truncated` says that the file ends clearly before its header promises. `count` is the header's then, and else that
    of the frames in the file. `restore` goes as far as a truncated clip does; its caller tells the user: "cut short
    after {done} of about {count} frames".
    """

    path: Path
    width: int
    height: int
    rate: float
    count: int
    truncated: bool = False


def probe(path: Path, max_seconds: float = MAX_SECONDS) -> Clip:
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


def frames(clip: Clip, max_seconds: float = MAX_SECONDS) -> Iterator[np.ndarray]:
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


class SteadyDehazer:
    """Restore the frames of one clip, in their order, by maps that follow the picture and not its noise.

    Every map is a running mean of those before it. Where the picture changes, and at a cut as a whole, the mean gives
    way to the new map: a recursive filter in time, edge-preserving like the bilateral one (ours). Raises VideoError for
    a model that predicts no maps.
    """

    def __init__(self, dehazer: Dehazer, rate: float):
        if not hasattr(dehazer.network, "maps"):
            raise VideoError(f"{dehazer.name} restores every frame afresh, and the clip would flicker. Choose another.")
        self.dehazer = dehazer
        self.least = 1 - exp(-1 / (rate * _MEMORY))
        self._maps: Tensor | None = None
        self._seen: Tensor | None = None

    @torch.inference_mode()
    def __call__(self, hazy: Tensor, strength: float = 1.0) -> Tensor:
        """Restore a frame [1,3,H,W] in [0,1]; return the same shape, clipped to [0,1], on the CPU."""
        maps = self.dehazer.maps(hazy, _MAPS_PIXELS)
        seen = F.interpolate(hazy, size=maps.shape[-2:], mode="area").to(maps.device)
        if self._maps is None or self._maps.shape != maps.shape:
            self._maps, self._seen = maps, seen
        else:
            change = (seen - self._seen).abs().amax(1, keepdim=True) / _MOTION
            # Between the pixels there is noise, and maps are smooth: the change is, too.
            change = F.avg_pool2d(change, 5, stride=1, padding=2, count_include_pad=False).clamp(max=1)
            weight = self.least + (1 - self.least) * change.square()
            self._maps, self._seen = self._maps.lerp(maps, weight), self._seen.lerp(seen, weight)
        restored = self.dehazer.network.apply_maps(hazy.to(maps.device), self._maps)[0].clamp_(0, 1).cpu()
        return restored if strength == 1 else torch.lerp(hazy, restored, strength)


def restore(
    clip: Clip, target: Path, dehazer: Dehazer, strength: float = 1.0, *, turn: Callable[[], Any] = nullcontext
) -> Iterator[int]:
    """Restore a clip into the WebM file `target`; give the number of frames done after each one.

    Every frame is restored within a `turn()`, such as a lock. A clip that is broken off leaves no file; one that is
    `truncated` gives a file of the frames that it holds. Raises VideoError.
    """
    steady, writer, done = SteadyDehazer(dehazer, clip.rate), None, 0
    try:
        for frame in frames(clip):
            hazy = torch.from_numpy(frame.transpose(2, 0, 1).copy())[None] / 255
            with turn():
                restored = steady(hazy, strength)
            pixels = restored[0].permute(1, 2, 0).mul(255).round().to(torch.uint8).numpy()
            writer = writer or _writer(target, clip.rate, pixels.shape[1], pixels.shape[0])
            writer.write(np.ascontiguousarray(pixels[..., ::-1]))
            done += 1
            yield done
        writer.release()
    except BaseException:  # a reader that turns away, too
        if writer is not None:
            writer.release()
        target.unlink(missing_ok=True)
        raise


def _writer(target: Path, rate: float, width: int, height: int) -> "cv2.VideoWriter":
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
