"""Maps set right by what photographs are like, where a network can only guess (all ours).

A network that learned from rendered haze leaves some of the real where that is dense, takes too much elsewhere, until
shadows are black, and wavers over skies and fog, where there is nothing to go by. All of this is seen, and set right,
in a small copy of the photograph.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from dehaze.filters.colour import balance, ramp
from dehaze.filters.flatness import (
    compared,
    deviation,
    even_mean,
    even_wide_mean,
    evenness,
    greatest,
    grown,
    mean,
)
from dehaze.networks.api.colour_maps import apply_maps, detail_maps, luminance_maps, times

# Within NEAR px of a copy of the size of the maps: the deviation from which on an image is not even, and is not at all,
# for what is calmed, and for what is not strengthened; what deviates so much on the mean is an image like others.
NEAR, EVEN, DIM, TYPICAL = 3, (0.005, 0.010), (0.008, 0.018), 0.018
NOISE = 1.5  # of the variance that white noise leaves in the copy: that of photographs is not quite white
ALIKE = (6, 0.015, 0.035)  # what `grown` takes
CLOSE, WIDE = 4, 8  # px of the copy: what is smooth in skies and fog, and the cells over which maps are averaged there
MOST_GAIN = 4.0  # of the detail of skies and fog, in luminance: in colour it is mostly noise, and stays as it is

# What deviates by FAINT is by half structure and by half rounding to 8 bits, and there is GRAIN of noise in all detail.
FAINT, GRAIN = 0.0013, 0.3
# Haze blurs as well: structure is sharpened by SHARPER of itself, less the nearer it comes to BOLD, from the first of
# these densities, and mean densities, on, and fully from the second.
SHARPER, BOLD, BLURRED, BLURRED_ALL_OVER = 1.2, 0.04, (0.0, 0.5), (0.4, 0.5)

# The darkest nearby is to be DARK, in its brightest channel: maps are weakened to LEAST of what they are, or
# strengthened by MOST of it.
ABOUT, BLUR = 1, 3  # px of the copy
DARK, LEAST, MOST = 0.03, 0.6, 1.0
# Densities, and mean densities of a photograph, from which on, and from which fully, maps are strengthened.
LEFT, HAZY = (0.42, 0.70), (0.49, 0.55)


def darkest(image: Tensor) -> Tensor:
    """Return the least of the brightest channel of `image` [B,3,H,W] within `ABOUT` px, [B,1,H,W]."""
    return -greatest(-image.amax(1, keepdim=True), ABOUT)


def shortfall(hazy: Tensor, restored: Tensor) -> Tensor:
    """Return by which share more is to be removed, so that the darkest of every place is dark and not black.

    `hazy` and `restored` [B,3,H,W]; the result [B,1,H,W] lies between `LEAST` − 1 and `MOST`. After the dark channel
    prior (He 2009): nearly every place of a clear photograph has something dark. Where nothing was removed, it is 0.
    """
    before = darkest(hazy)
    removed = before - darkest(restored)
    share = ((before - DARK) / removed.clamp_min(0.02)).clamp(LEAST, 1 + MOST) - 1
    return mean(share * (removed >= 0.02), BLUR)


def refined(hazy: Tensor, maps: Tensor) -> Tensor:
    """Return maps [B,26,h,w] set right for the photograph `hazy` [B,3,H,W] in [0,1], H and W as large or larger.

    Strengthened where haze is left and there is something to see, in luminance alone, so that tints do not grow with
    it; weakened where shadows would be black; smooth over skies and fog, where what structure there is is amplified as
    much as haze of that density took from it, up to a limit; and balanced as a whole. The last map is new: by how much
    structure elsewhere is sharpened.
    """
    pixels = hazy.shape[-2:].numel() / maps.shape[-2:].numel()  # of the photograph in one of the copy
    hazy, squares = (F.adaptive_avg_pool2d(image, maps.shape[-2:]) for image in (hazy.float(), hazy.float().square()))
    variance = (squares - hazy.square()).clamp_min(0)  # within a pixel of the copy
    maps = maps.float().contiguous()
    affine, logit = maps.split((24, 1), 1)
    density = logit.sigmoid()
    amount = density.mean((1, 2, 3), keepdim=True)
    deviates = deviation(hazy, NEAR, NOISE * variance / pixels)
    varied = compared(deviates, TYPICAL)
    even = mean(grown(hazy, evenness(varied, NEAR, *EVEN), *ALIKE), 1)
    seen = 1 - torch.maximum(even, evenness(varied, NEAR, *DIM))

    short = shortfall(hazy, apply_maps(hazy, maps)[0])
    left = ramp(density, LEFT) * ramp(amount, HAZY) * seen
    affine = affine * (1 + short.clamp_max(0)) + short.clamp_min(0) * left * luminance_maps(affine)

    # Noise deviates within a pixel of the copy, steps of JPEG from one to the next, structure in both ways.
    within = mean(variance.amax(1, keepdim=True), 1)
    structure = deviates.square().minimum(within)
    structure = structure / (structure + FAINT**2 + GRAIN * within)
    blurred = ramp(density, BLURRED) * ramp(amount, BLURRED_ALL_OVER) / (1 + (deviates / BOLD) ** 2)
    sharper = SHARPER * blurred * structure * (1 - even)

    even_parts = torch.cat([hazy, density, structure], 1)
    smooth, smooth_density, structure = even_mean(even_parts, even, CLOSE, times=2).split((3, 1, 1), 1)
    scene, _ = apply_maps(smooth, torch.cat([even_wide_mean(affine, even, WIDE), logit], 1))
    gain = 1 + structure * (1 / (1 - smooth_density).clamp_min(1 / MOST_GAIN) - 1)
    calm = detail_maps(smooth, scene, gain)

    maps = torch.cat([torch.lerp(affine, calm, even), logit], 1)
    maps = times(maps, balance(hazy, *apply_maps(hazy, maps)))
    return torch.cat([maps, sharper], 1)
