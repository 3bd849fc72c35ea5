"""Where an image is even, as skies, fog and water are, and shows whatever a network wavers in."""

from functools import reduce

import torch
from torch import Tensor
from torch.nn import functional as F


def _shifted(x: Tensor, radius: int, axis: int, beyond: float) -> list[Tensor]:
    """Return `x` [B,C,H,W] shifted by −`radius` to `radius` px along an axis, with the value `beyond` its borders."""
    padded = F.pad(x, [radius, radius] if axis == -1 else [0, 0, radius, radius], value=beyond)
    return [padded.narrow(axis, shift, x.shape[axis]) for shift in range(2 * radius + 1)]


# Both filters are several times faster so than by pooling, which on CPUs has no vectors for so few channels.


def mean(x: Tensor, radius: int) -> Tensor:
    """Return the mean of `x` [B,C,H,W] within `radius` px along both axes, of what lies inside the image."""
    for axis in (-1, -2):
        first, *others = _shifted(x, radius, axis, 0.0)
        total = first.clone()
        for other in others:
            total += other
        place = torch.arange(x.shape[axis], device=x.device, dtype=x.dtype)
        inside = place.clamp(max=radius) + place.flip(0).clamp(max=radius) + 1
        x = total / (inside if axis == -1 else inside[:, None])
    return x


def greatest(x: Tensor, radius: int) -> Tensor:
    """Return the greatest of `x` [B,C,H,W] within `radius` px along both axes."""
    for axis in (-1, -2):
        x = reduce(torch.maximum, _shifted(x, radius, axis, -torch.inf))
    return x


def deviation(image: Tensor, near: int, noise: Tensor | float = 0.0) -> Tensor:
    """Return how much `image` [B,3,H,W] deviates from its mean within `near` px, as a root mean square, [B,1,H,W].

    Of the channel where it is most. A slope deviates by nothing, as its mean goes with it, and no more does `noise` of
    the given variance [B,3,H,W].
    """
    variance = mean((image - mean(image, near)).square() - noise, near)
    return greatest(variance.clamp_min(0).sqrt().amax(1, keepdim=True), near // 3)


def compared(deviation: Tensor, typical: float) -> Tensor:
    """Return the `deviation` [B,1,H,W], times the same factor all over an image that deviates less than `typical`.

    So much, and not more than 2, that the mean is typical: in photographs of dense haze everything deviates less.
    """
    return deviation * (typical / deviation.mean((2, 3), keepdim=True).clamp_min(1e-6)).clamp(1, 2)


def evenness(deviation: Tensor, near: int, even: float, uneven: float) -> Tensor:
    """Return where an image is even: [B,1,H,W], 1 where it is, 0 where there is something to see.

    It falls from 1 to 0 while the `deviation` [B,1,H,W] within `near` px rises from `even` to `uneven`.
    """
    return mean(((uneven - deviation) / (uneven - even)).clamp(0, 1), near // 2)


def even_mean(x: Tensor, even: Tensor, radius: int, times: int = 1) -> Tensor:
    """Return the mean of `x` [B,C,H,W] within `radius` px, weighted by how `even` [B,1,H,W] it is there.

    This is normalised convolution (Knutsson and Westin 1993); where nothing near is even, it is the plain mean. Taken
    several `times`, it is smoother.
    """
    weight = even + 1e-4
    total = mean(weight, radius)
    for _ in range(times):
        x = mean(x * weight, radius) / total
    return x


def even_wide_mean(x: Tensor, even: Tensor, cell: int) -> Tensor:
    """Return the same mean over some three cells of `cell` px, at far less cost, and 0 where nothing near is even."""
    cells = [-(-length // cell) for length in even.shape[-2:]]
    weighted, weight = (mean(F.adaptive_avg_pool2d(part, cells), 1) for part in (x * even, even))
    return F.interpolate(weighted / (weight + 1e-4), size=even.shape[-2:], mode="bilinear", align_corners=False)


def grown(image: Tensor, even: Tensor, radius: int, alike: float, other: float) -> Tensor:
    """Return `even` [B,1,H,W] with what has the colour of the even parts of `image` [B,3,H,W] within `radius` px.

    So a sky reaches to the roofs and trees before it, and has no holes where it is a little less even. The share of
    what is taken in falls from 1 to 0 while a channel comes to differ by `alike` to `other` from the even mean.
    """
    difference = (image - even_mean(image, even, radius)).abs().amax(1, keepdim=True)
    near = (4 * mean(even, radius)).clamp_max(1)
    return torch.maximum(even, ((other - difference) / (other - alike)).clamp(0, 1) * near)
