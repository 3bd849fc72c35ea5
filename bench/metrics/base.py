"""What every metric is: a specification, and a function on tensors that is checked before it is called."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bench.errors import MetricError

Direction = Literal["up", "down", "one"]  # which way is better; "one": the nearer to 1
Score = Callable[..., Tensor]  # of the restored image, and of the one it is compared with where there is one


@dataclass(frozen=True)
class MetricSpec:
    """Say what a metric's number means: which way is better, in what unit, between which bounds.

    With `reference` it compares with the clear image, with `hazy` with the hazy one, else it sees the restored alone.
    """

    name: str
    reference: bool
    direction: Direction
    unit: str
    low: float
    high: float
    definition: str
    hazy: bool = False


@dataclass(frozen=True)
class Metric:
    """A metric ready to be called on restored images.

    `metric(restored, clear, hazy)` takes images [B, 3, H, W] in [0, 1] (RGB) and returns [B] scores in float64 on the
    CPU. `clear` is needed where `spec.reference` is true, `hazy` where `spec.hazy` is, and both are ignored elsewhere.
    Raises `MetricError` where an image is not of that form, is too small for the metric, or leaves it undefined.
    """

    spec: MetricSpec
    score: Score

    @torch.no_grad()
    def __call__(self, restored: Tensor, clear: Tensor | None = None, hazy: Tensor | None = None) -> Tensor:
        self._check(restored, "restored")
        images = [restored]
        if self.spec.reference or self.spec.hazy:
            which, other = ("clear", clear) if self.spec.reference else ("hazy", hazy)
            if other is None:
                raise self._error(f"compares with a {which} image and none was given.", f"Pass {which}=….")
            self._check(other, which)
            if restored.shape != other.shape:
                sizes = f"the restored one is {_size(restored)}, the {which} one {_size(other)}"
                raise self._error(f"compares images of one size, and {sizes}.", "Bring both to one size.")
            images.append(other)
        scores = self.score(*images).detach().double().cpu().reshape(-1)
        if scores.isnan().any():
            raise self._error(
                "is undefined for this image: it has no structure to measure, as a picture of one colour.",
                "Leave the image out of this metric.",
            )
        return scores

    def _check(self, image: Tensor, which: str) -> None:
        if not isinstance(image, Tensor) or image.ndim != 4 or image.shape[1] != 3 or not image.is_floating_point():
            form = f"{image.dtype} {list(image.shape)}" if isinstance(image, Tensor) else type(image).__name__
            raise self._error(
                f"takes RGB images as a float tensor [B, 3, H, W], and the {which} one is {form}.", "Convert it first."
            )
        if image.numel() == 0:
            raise self._error(f"got an empty {which} image of shape {list(image.shape)}.")
        low, high = image.aminmax()
        if not (low >= -1e-6 and high <= 1 + 1e-6):  # NaN fails this too
            raise self._error(
                f"takes values in [0, 1], and the {which} image spans [{low:.4g}, {high:.4g}].",
                "Scale or clip it first.",
            )

    def _error(self, reason: str, advice: str = "") -> MetricError:
        return MetricError(reason, advice, subject=self.spec.name)


def _size(image: Tensor) -> str:
    return f"{image.shape[0]} of {image.shape[3]}×{image.shape[2]}"
