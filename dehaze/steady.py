"""Restore clips frame by frame, with maps that change slowly, so that they do not flicker."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from math import exp
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from dehaze.adjust import finish
from dehaze.dehazer import Dehazer
from dehaze.errors import VideoError
from dehaze.io.clip import Clip, read_frames
from dehaze.io.clip_writer import ClipWriter
from dehaze.io.files import whole_file
from dehaze.networks.base import PredictsMaps, change_fields

_COPY_PIXELS = 500_000  # of the reduced copy that the maps are predicted on
_TIME_CONSTANT = 0.3  # s of the running mean of the maps, where nothing moves
_MOTION_CHANGE = 0.08  # change of a pixel's value, in [0,1], from which on only the new maps count


class SteadyDehazer:
    """Restore the frames of one clip, in their order, by maps that do not flicker.

    The maps are a running mean over the frames, a recursive filter in time. Where the picture changes, as it does
    everywhere at a cut, the new maps replace the mean, as in a bilateral filter (ours). Raises VideoError for a model
    that predicts no maps.
    """

    def __init__(self, dehazer: Dehazer):
        if not isinstance(network := dehazer.network, PredictsMaps):
            raise VideoError(
                "restores every frame afresh, and the clip would flicker.", "Choose another.", subject=dehazer.name
            )
        self.dehazer, self.network = dehazer, network
        self._maps: tuple[Tensor, ...] | None = None
        self._curve: Tensor | None = None
        self._seen: Tensor | None = None
        self._time = 0.0

    @torch.inference_mode()
    def __call__(self, hazy: Tensor, time: float, strength: float = 1.0) -> Tensor:
        """Restore a frame [1,3,H,W] in [0,1], shown at a `time` in s; return the same shape, clipped, on the CPU."""
        maps, curve = self.dehazer.predict_maps(hazy, _COPY_PIXELS, strength)
        seen = F.interpolate(hazy, size=maps[0].shape[-2:], mode="area").to(maps[0].device)
        if self._maps is None or self._seen is None or self._seen.shape != seen.shape:
            self._maps, self._seen, self._curve = maps, seen, curve
        else:
            change = (seen - self._seen).abs().amax(1, keepdim=True) / _MOTION_CHANGE
            # Smoothed against noise: maps are smooth, too.
            change = F.avg_pool2d(change, 5, stride=1, padding=2, count_include_pad=False).clamp(max=1)
            least_weight = 1 - exp(-max(0.0, time - self._time) / _TIME_CONSTANT)
            weight = least_weight + (1 - least_weight) * change.square()
            self._maps = change_fields(lambda before, now: before.lerp(now, weight), self._maps, maps)
            self._seen = self._seen.lerp(seen, weight)
            if self._curve is not None and curve is not None:
                self._curve = self._curve.lerp(curve, weight.mean((2, 3)))
        self._time = time
        restored = self.network.apply_maps(hazy.to(seen.device), self._maps)[0].cpu()
        return finish(restored, self._curve)


def restore_clip(
    clip: Clip,
    target: Path,
    dehazer: Dehazer,
    strength: float = 1.0,
    strip_metadata: bool = False,
    *,
    turn: Callable[[], Any] = nullcontext,
) -> Iterator[int]:
    """Restore a clip into the MP4 file `target`; yield the number of restored frames after each one.

    Every frame is restored within a `turn()`, such as a lock. A stopped restoration leaves no file; a `truncated` clip
    gives a file of the frames that it holds. Raises VideoError and OutputError.
    """
    steady = SteadyDehazer(dehazer)
    with whole_file(target) as file, ClipWriter(file.name, clip, target, strip_metadata) as writer:
        for done, frame in enumerate(read_frames(clip), 1):
            hazy = torch.from_numpy(frame.pixels.transpose(2, 0, 1).copy())[None] / 255
            with turn():
                restored = steady(hazy, frame.time, strength)
            writer.write(restored[0].permute(1, 2, 0).mul(255).round().to(torch.uint8).numpy(), frame)
            yield done
