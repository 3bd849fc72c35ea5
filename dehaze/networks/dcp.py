"""Dark channel prior (He, Sun, Tang 2009), refined by a guided filter (He, Sun, Tang 2010; fast: He, Sun 2015)."""

from typing import ClassVar

import torch
from torch import Tensor
from torch.nn import functional as F

from dehaze.filters.colour import LUMINANCE_WEIGHTS
from dehaze.filters.guided import guided_coefficients
from dehaze.networks.base import EstimatesDensity


def _minimum_along(x: Tensor, window: int) -> Tensor:
    """Take the sliding minimum along the last dimension (van Herk 1992; Gil, Werman 1993)."""
    radius, length = window // 2, x.shape[-1]
    blocks = -(-(length + 2 * radius) // window)
    padded = F.pad(x, (radius, blocks * window - length - radius), value=torch.inf)
    padded = padded.unflatten(-1, (blocks, window))
    from_left = padded.cummin(-1).values.flatten(-2)
    from_right = padded.flip(-1).cummin(-1).values.flip(-1).flatten(-2)
    return torch.minimum(from_right[..., :length], from_left[..., window - 1 : window - 1 + length])


def minimum_filter(x: Tensor, window: int) -> Tensor:
    """Return the minimum over a `window`×`window` neighbourhood (odd), cut off at the borders, of [..., H, W].

    The time does not depend on the window.
    """
    return _minimum_along(_minimum_along(x, window).mT.contiguous(), window).mT


class DCP(EstimatesDensity):
    """Restore by the dark channel prior: window 15, ω 0.95, t₀ 0.1, guided filter of radius 60 and ε 1e−3.

    The airlight, one for the whole image, is the brightest of the 0.1 % pixels with the largest dark channel. Above 2
    megapixels the maps are computed on a reduced image and the filter's coefficients enlarged (the fast guided filter),
    which bounds time and memory.
    """

    window: ClassVar[int] = 15
    omega: ClassVar[float] = 0.95
    least_transmission: ClassVar[float] = 0.1
    radius: ClassVar[int] = 60
    epsilon: ClassVar[float] = 1e-3
    largest_exact: ClassVar[int] = 2_000_000

    def airlight(self, hazy: Tensor, dark_channel: Tensor) -> Tensor:
        """Estimate the airlight [B,3,1,1] from `hazy` [B,3,H,W] and its dark channel [B,1,H,W]."""
        count = max(1, dark_channel[0].numel() // 1000)
        haziest = dark_channel.flatten(1).topk(count).indices
        colours = hazy.flatten(2).gather(2, haziest[:, None].expand(-1, 3, -1))
        brightest = colours.sum(1).argmax(1)[:, None, None].expand(-1, 3, 1)
        return colours.gather(2, brightest)[..., None].clamp_min(1e-3)

    def estimate(self, hazy: Tensor) -> tuple[Tensor, Tensor]:
        """Return the airlight [B,3,1,1] and the refined transmission [B,1,H,W] in [t₀, 1] of `hazy` [B,3,H,W]."""
        height, width = hazy.shape[-2:]
        shrink = (self.largest_exact / (height * width)) ** 0.5
        small = hazy
        if shrink < 1:
            size = (max(1, round(height * shrink)), max(1, round(width * shrink)))
            small = F.interpolate(hazy, size=size, mode="area")
        airlight = self.airlight(small, minimum_filter(small.amin(1, keepdim=True), self.window))
        haze = minimum_filter((small / airlight).amin(1, keepdim=True), self.window)
        a, b = guided_coefficients(luma(small), 1 - self.omega * haze, self.radius, self.epsilon)
        if shrink < 1:
            a, b = (F.interpolate(x, size=(height, width), mode="bilinear", align_corners=False) for x in (a, b))
        return airlight, luma(hazy).mul_(a).add_(b).clamp_(self.least_transmission, 1)

    def restore_with_density(self, hazy: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored image, not clipped, and the density 1 − t [B,1,H,W]."""
        airlight, transmission = self.estimate(hazy.float())
        restored = (hazy - airlight).div_(transmission).add_(airlight)
        return restored, transmission.neg_().add_(1)


def luma(image: Tensor) -> Tensor:
    """Return Rec. 601 luma [B,1,H,W] of RGB [B,3,H,W]; `luminance`, but for its rounding, in less memory."""
    red, green, blue = image.split(1, 1)
    of_red, of_green, of_blue = LUMINANCE_WEIGHTS
    return (of_red * red).add_(green, alpha=of_green).add_(blue, alpha=of_blue)
