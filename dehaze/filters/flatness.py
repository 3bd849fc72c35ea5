"""Flat regions of an image, as skies, fog and water are: where they lie, and means over them alone."""

from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F


def _shifted(x: Tensor, radius: int, axis: int, beyond: float) -> list[Tensor]:
    """Return `x` [B,C,H,W] shifted by −`radius` to `radius` px along an axis, with the value `beyond` its borders."""
    padded = F.pad(x, [radius, radius] if axis == -1 else [0, 0, radius, radius], value=beyond)
    return [padded.narrow(axis, shift, x.shape[axis]) for shift in range(2 * radius + 1)]


# Shifts are several times faster than pooling, which on CPUs does not vectorise so few channels.


def local_mean(x: Tensor, radius: int) -> Tensor:
    """Return the mean of `x` [B,C,H,W] within `radius` px along both axes, cut off at the borders."""
    for axis in (-1, -2):
        first, *others = _shifted(x, radius, axis, 0.0)
        total = first.clone()
        for other in others:
            total += other
        place = torch.arange(x.shape[axis], device=x.device, dtype=x.dtype)
        inside = place.clamp(max=radius) + place.flip(0).clamp(max=radius) + 1
        x = total / (inside if axis == -1 else inside[:, None])
    return x


def local_maximum(x: Tensor, radius: int) -> Tensor:
    """Return the maximum of `x` [B,C,H,W] within `radius` px along both axes."""
    for axis in (-1, -2):
        x = reduce(torch.maximum, _shifted(x, radius, axis, -torch.inf))
    return x


def local_deviation(image: Tensor, radius: int) -> Tensor:
    """Return the standard deviation of `image` [B,3,H,W] from its local mean, [B,1,H,W], of the channel with the most.

    Slopes do not count, since the local mean follows them.
    """
    variance = local_mean((image - local_mean(image, radius)).square(), radius)
    return local_maximum(variance.sqrt().amax(1, keepdim=True), radius // 3)


def flatness(deviation: Tensor, radius: int, flat: float, textured: float) -> Tensor:
    """Return how flat each place is, [B,1,H,W]: 1 below the `deviation` [B,1,H,W] `flat`, 0 above `textured`.

    `radius` is that of the local deviation, in px.
    """
    return local_mean(((textured - deviation) / (textured - flat)).clamp(0, 1), radius // 2)


def flat_cell_mean(x: Tensor, flat: Tensor, cell: int) -> Tensor:
    """Return the mean of `x` [B,C,H,W] over about three cells of `cell` px, weighted by the flatness `flat` [B,1,H,W].

    This is normalised convolution (Knutsson and Westin 1993). Where nothing near is flat, the result is 0.
    """
    rows, columns = (-(-length // cell) for length in flat.shape[-2:])
    weighted, weight = (local_mean(F.adaptive_avg_pool2d(part, (rows, columns)), 1) for part in (x * flat, flat))
    return F.interpolate(weighted / (weight + 1e-4), size=flat.shape[-2:], mode="bilinear", align_corners=False)
