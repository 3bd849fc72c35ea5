"""Make skies overcast (ours): the sky is rarely blue behind real haze, but often in clear photographs."""

import torch
from torch import Tensor

from dehaze.filters.flatness import local_maximum

KEPT_CONTRAST = 0.3  # share of the contrast of the sky
REACH_DIVISOR = 24  # the sky may exceed its region in the depth by 1/24 of the shorter side


def sky_mask(clear: Tensor, depth: Tensor) -> Tensor:
    """Return the share of sky [1,H,W] in [0,1] of each pixel of `clear` [3,H,W].

    Sky is blue or bright where `depth` [H,W] is 1, or a little beyond, because depth maps are coarse. Other pixels that
    a depth map places at infinity are mountains or meadows.
    """
    reach = max(1, min(depth.shape) // REACH_DIVISOR)
    far = (depth > 1 - 1.5 / 255).to(clear.dtype)[None]
    far = local_maximum(far[None], reach)[0]
    return far * sky_colour(clear)


def sky_colour(clear: Tensor) -> Tensor:
    """Return how far the colour of each pixel of `clear` [3,H,W] is one of a sky, blue or bright: [1,H,W] in [0,1]."""
    blue = (clear[2:] - clear[:1] - 0.05) / 0.1
    bright = (clear.amin(0, keepdim=True) - 0.5) / 0.15
    return torch.maximum(blue, bright).clamp(0, 1)


def overcast(clear: Tensor, sky: Tensor, brightness: float) -> Tensor:
    """Replace the `sky` [1,H,W] of `clear` [3,H,W] by nearly uniform grey clouds of a mean brightness in [0,1]."""
    intensity = clear.mean(0, keepdim=True)
    texture = intensity - (intensity * sky).sum() / sky.sum().clamp_min(1)
    return torch.lerp(clear, (brightness + KEPT_CONTRAST * texture).clamp(0, 1).expand_as(clear), sky)
