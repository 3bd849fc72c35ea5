"""Restore clips frame by frame, with maps that change slowly, so that they do not flicker."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from math import exp
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dehaze.dehazer import Dehazer
from dehaze.errors import VideoError
from dehaze.io.clip import Clip, check_written, clip_writer, read_frames
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

    def __init__(self, dehazer: Dehazer, rate: float):
        if not isinstance(network := dehazer.network, PredictsMaps):
            raise VideoError(
                "restores every frame afresh, and the clip would flicker.", "Choose another.", subject=dehazer.name
            )
        self.dehazer, self.network = dehazer, network
        self.least_weight = 1 - exp(-1 / (rate * _TIME_CONSTANT))
        self._maps: tuple[Tensor, ...] | None = None
        self._seen: Tensor | None = None

    @torch.inference_mode()
    def __call__(self, hazy: Tensor, strength: float = 1.0) -> Tensor:
        """Restore a frame [1,3,H,W] in [0,1]; return the same shape, clipped to [0,1], on the CPU."""
        maps = self.dehazer.predict_maps(hazy, _COPY_PIXELS)
        seen = F.interpolate(hazy, size=maps[0].shape[-2:], mode="area").to(maps[0].device)
        if self._maps is None or self._seen is None or self._seen.shape != seen.shape:
            self._maps, self._seen = maps, seen
        else:
            change = (seen - self._seen).abs().amax(1, keepdim=True) / _MOTION_CHANGE
            # Smoothed against noise: maps are smooth, too.
            change = F.avg_pool2d(change, 5, stride=1, padding=2, count_include_pad=False).clamp(max=1)
            weight = self.least_weight + (1 - self.least_weight) * change.square()
            self._maps = change_fields(lambda before, now: before.lerp(now, weight), self._maps, maps)
            self._seen = self._seen.lerp(seen, weight)
        restored = self.network.apply_maps(hazy.to(seen.device), self._maps)[0].clamp_(0, 1).cpu()
        return restored if strength == 1 else torch.lerp(hazy, restored, strength)


def restore_clip(
    clip: Clip, target: Path, dehazer: Dehazer, strength: float = 1.0, *, turn: Callable[[], Any] = nullcontext
) -> Iterator[int]:
    """Restore a clip into the WebM file `target`; yield the number of restored frames after each one.

    Every frame is restored within a `turn()`, such as a lock. A stopped restoration leaves no file; a `truncated` clip
    gives a file of the frames that it holds. Raises VideoError.
    """
    steady, writer, done = SteadyDehazer(dehazer, clip.rate), None, 0
    try:
        for frame in read_frames(clip):
            hazy = torch.from_numpy(frame.transpose(2, 0, 1).copy())[None] / 255
            with turn():
                restored = steady(hazy, strength)
            pixels = restored[0].permute(1, 2, 0).mul(255).round().to(torch.uint8).numpy()
            writer = writer or clip_writer(target, clip.rate, pixels.shape[1], pixels.shape[0])
            writer.write(np.ascontiguousarray(pixels[..., ::-1]))
            done += 1
            yield done
        assert writer is not None  # `read_frames` raises for a clip without frames
        writer.release()
        check_written(target, done)
    except BaseException:  # a caller that stops iterating, too
        if writer is not None:
            writer.release()
        target.unlink(missing_ok=True)
        raise
