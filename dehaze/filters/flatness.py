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


def local_deviation(image: Tensor, radius: int, noise: Tensor | float = 0.0) -> Tensor:
    """Return the standard deviation of `image` [B,3,H,W] from its local mean, [B,1,H,W], of the channel with the most.

    Slopes do not count, since the local mean follows them; nor does noise of the variance `noise` [B,3,H,W].
    """
    variance = local_mean((image - local_mean(image, radius)).square() - noise, radius)
    return local_maximum(variance.clamp_min(0).sqrt().amax(1, keepdim=True), radius // 3)


def raise_to_typical(deviation: Tensor, typical: float) -> Tensor:
    """Multiply the `deviation` [B,1,H,W] of each image by one factor, 1 to 2, towards the mean `typical`.

    In photographs of dense haze everything deviates less.
    """
    return deviation * (typical / deviation.mean((2, 3), keepdim=True).clamp_min(1e-6)).clamp(1, 2)


def flatness(deviation: Tensor, radius: int, flat: float, textured: float) -> Tensor:
    """Return how flat each place is, [B,1,H,W]: 1 below the `deviation` [B,1,H,W] `flat`, 0 above `textured`.

    `radius` is that of the local deviation, in px.
    """
    return local_mean(((textured - deviation) / (textured - flat)).clamp(0, 1), radius // 2)


def flat_mean(x: Tensor, flat: Tensor, radius: int, times: int = 1) -> Tensor:
    """Return the mean of `x` [B,C,H,W] within `radius` px, weighted by the flatness `flat` [B,1,H,W].

    This is normalised convolution (Knutsson and Westin 1993). Where nothing near is flat, it is the plain mean. Taken
    several `times`, it is smoother.
    """
    weight = flat + 1e-4
    total = local_mean(weight, radius)
    for _ in range(times):
        x = local_mean(x * weight, radius) / total
    return x


def flat_cell_mean(x: Tensor, flat: Tensor, cell: int) -> Tensor:
    """Return the flat mean over about three cells of `cell` px, at far less cost; 0 where nothing near is flat."""
    rows, columns = (-(-length // cell) for length in flat.shape[-2:])
    weighted, weight = (local_mean(F.adaptive_avg_pool2d(part, (rows, columns)), 1) for part in (x * flat, flat))
    return F.interpolate(weighted / (weight + 1e-4), size=flat.shape[-2:], mode="bilinear", align_corners=False)


def grow_flat_regions(image: Tensor, flat: Tensor, radius: int, same: float, other: float) -> Tensor:
    """Extend the flatness `flat` [B,1,H,W] to places within `radius` px that have the flat region's colour.

    So a sky reaches to the roofs and trees before it, and has no holes. A place counts in full up to a difference
    `same` of a channel of `image` [B,3,H,W] from the flat mean, and not at all from `other` on.
    """
    difference = (image - flat_mean(image, flat, radius)).abs().amax(1, keepdim=True)
    near = (4 * local_mean(flat, radius)).clamp_max(1)
    return torch.maximum(flat, ((other - difference) / (other - same)).clamp(0, 1) * near)
