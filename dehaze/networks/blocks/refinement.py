"""Maps set right by what photographs are like, where a network can only guess (all ours).

A network that learned from rendered haze leaves some of the real where that is dense, takes too much elsewhere, until
shadows are black, and wavers over skies and fog, where there is nothing to go by. All of this is seen, and set right,
in a small copy of the photograph.
"""

import torch
from torch import Tensor
from torch.nn import functional as F

from dehaze.networks.blocks.balance import balance, ramp
from dehaze.networks.blocks.colour_maps import apply_maps, detail_maps, luminance_maps, times
from dehaze.networks.blocks.evenness import even_mean, even_wide_mean, evenness, grown, mean

EVEN = (3, 0.006, 0.014, 0.03)  # what `evenness` takes for a copy of the size of the maps
ALIKE = (6, 0.015, 0.035)  # what `grown` takes
CLOSE, WIDE = 4, 16  # px of the copy: what is smooth in skies and fog, and the cells over which maps are averaged there
MOST_GAIN, MOST_COLOUR_GAIN = 3.0, 1.5  # of the detail of skies and fog: more of it is noise, and of its colour first

# Dense haze is thinned by training, and seldom removed: from the first of these densities to the second, maps grow
# stronger by this share.
DENSE, STRONGER = (0.6, 0.8), 0.1
# The darkest nearby is not to be darker than BLACK, in its brightest channel, and haze is left where it is brighter
# than DARK; maps are weakened to LEAST and strengthened by MOST of what they are, the latter between these densities,
# and between these mean densities of the photograph.
NEAR, BLUR = 2, 4  # px of the copy
BLACK, DARK, LEAST, MOST = 0.03, 0.08, 0.6, 2.0
LEFT, HAZY = (0.53, 0.77), (0.50, 0.56)


def darkest(image: Tensor) -> Tensor:
    """Return the least of the brightest channel of `image` [B,3,H,W] within `NEAR` px, [B,1,H,W]."""
    side = 2 * NEAR + 1
    return -F.max_pool2d(-image.amax(1, keepdim=True), side, stride=1, padding=NEAR)


def shortfall(hazy: Tensor, restored: Tensor) -> Tensor:
    """Return by which share more is to be removed, so that the darkest of every place is dark and not black.

    `hazy` and `restored` [B,3,H,W]; the result [B,1,H,W] lies between `LEAST` − 1 and `MOST`. After the dark channel
    prior (He 2009): nearly every place of a clear photograph has something dark. Where nothing was removed, it is 0.
    """
    before = darkest(hazy)
    removed = before - darkest(restored)
    much = removed.clamp_min(0.02)
    less, more = (before - BLACK) / much, (before - DARK) / much
    share = less.clamp(LEAST, 1) + more.clamp(1, 1 + MOST) - 2
    return mean(share * (removed >= 0.02), BLUR)


def refined(hazy: Tensor, maps: Tensor) -> Tensor:
    """Return maps [B,25,h,w] set right for a photograph, of which `hazy` [B,3,h,w] in [0,1] is a copy of their size.

    Strengthened where haze is left and there is something to see, in luminance alone, so that tints do not grow with
    it; weakened where shadows would be black; smooth over skies and fog, where the detail of the photograph is
    amplified as much as haze of that density took from it, but not more than `MOST_GAIN`; and balanced as a whole.
    """
    affine, logit = maps.float().split((24, 1), 1)
    density = logit.sigmoid()
    even = grown(hazy, evenness(hazy, *EVEN), *ALIKE)

    affine = affine * (1 + STRONGER * ramp(density, DENSE) * (1 - even))
    short = shortfall(hazy, apply_maps(hazy, torch.cat([affine, logit], 1))[0])
    left = ramp(density, LEFT) * ramp(density.mean((1, 2, 3), keepdim=True), HAZY) * (1 - even)
    affine = affine * (1 + short.clamp_max(0)) + short.clamp_min(0) * left * luminance_maps(affine)

    smooth, smooth_density = (even_mean(even_mean(part, even, CLOSE), even, CLOSE) for part in (hazy, density))
    scene, _ = apply_maps(smooth, torch.cat([even_wide_mean(affine, even, WIDE), logit], 1))
    gain = 1 / (1 - smooth_density).clamp_min(1 / MOST_GAIN)
    calm = detail_maps(smooth, scene, gain, gain.clamp_max(MOST_COLOUR_GAIN))

    maps = torch.cat([torch.lerp(affine, calm, even), logit], 1)
    return times(maps, balance(hazy, *apply_maps(hazy, maps)))
