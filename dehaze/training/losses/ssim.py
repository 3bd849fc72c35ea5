"""Differentiable SSIM: Gaussian window of 11 pixels, σ 1.5, valid region, range 1."""

import torch
from torch import Tensor

from dehaze.ssim import ssim_map


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean structural similarity [B] of images [B,C,H,W] in [0,1] of at least 11×11 pixels.

    The computation is in float32: half precision would lose the variances.
    """
    with torch.autocast(a.device.type, enabled=False):
        return ssim_map(a.float(), b.float()).flatten(1).mean(1)
