"""Choose the samples and windows of a batch that are contrasted: features of all crops would cost too much."""

from types import EllipsisType

import torch
from torch import Tensor

from dehaze.training.recipe import Batch

Window = tuple[EllipsisType, slice, slice]


def hazy_windows(batch: Batch, share: float, side: int, draws: torch.Generator) -> tuple[Tensor, Window]:
    """Return the indices [K] of about `share` of the samples, and an index that cuts a random window from images.

    Clear samples are not chosen: their hazy image equals the positive and cannot be a negative. The window has `side`
    px, or the size of the images if they are smaller.
    """
    hazy = batch["hazy"]
    hazed = ((hazy - batch["clear"]).abs().mean((1, 2, 3)) > 0.005).nonzero()[:, 0]
    side = min(side, *hazy.shape[-2:])
    top, left = (int(torch.randint(0, length - side + 1, (), generator=draws)) for length in hazy.shape[-2:])
    return hazed[-max(1, round(share * len(hazy))) :], (..., slice(top, top + side), slice(left, left + side))
