"""Overcast skies: behind real haze the sky is seldom blue, in clear photographs it often is (ours)."""

import torch
from torch import Tensor
from torch.nn import functional as F

TEXTURE = 0.3  # what remains of the sky's own contrast
REACH = 24  # the sky reaches at most one part in so many of the shorter side beyond where the depth sees it


def sky_mask(clear: Tensor, depth: Tensor) -> Tensor:
    """Return how much of each pixel of `clear` [3,H,W] is sky, [1,H,W] in [0,1].

    Where `depth` [H,W] is 1 and a little beyond, for depth maps are coarse, blue or bright pixels are sky: what else
    such a map takes for sky, a mountain or a meadow, is not.
    """
    reach = max(1, min(depth.shape) // REACH)
    far = (depth > 1 - 1.5 / 255).to(clear.dtype)[None]
    far = F.max_pool2d(far, 2 * reach + 1, stride=1, padding=reach)
    blue = (clear[2:] - clear[:1] - 0.05) / 0.1
    bright = (clear.amin(0, keepdim=True) - 0.5) / 0.15
    return far * torch.maximum(blue, bright).clamp(0, 1)


def overcast(clear: Tensor, sky: Tensor, brightness: float) -> Tensor:
    """Cover the `sky` [1,H,W] of `clear` [3,H,W] with nearly even grey clouds of a mean brightness in [0,1]."""
    intensity = clear.mean(0, keepdim=True)
    texture = intensity - (intensity * sky).sum() / sky.sum().clamp_min(1)
    return torch.lerp(clear, (brightness + TEXTURE * texture).clamp(0, 1).expand_as(clear), sky)
