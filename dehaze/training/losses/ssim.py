"""Differentiable SSIM (Wang et al. 2004): Gaussian window of 11 pixels, σ 1.5, valid region, range 1."""

import torch
from torch import Tensor

WINDOW_SIDE, WINDOW_SIGMA = 11, 1.5  # px
C1, C2 = 0.01**2, 0.03**2


def ssim(a: Tensor, b: Tensor) -> Tensor:
    """Return the mean structural similarity [B] of images [B,C,H,W] in [0,1] of at least 11×11 pixels.

    The computation is in float32: half precision would lose the variances.
    """
    a, b = a.float(), b.float()
    with torch.autocast(a.device.type, enabled=False):
        maps = torch.stack([a, b, a * a, b * b, a * b])
        mean_a, mean_b, square_a, square_b, product = _blur(maps)
        covariance, variance_a, variance_b = product - mean_a * mean_b, square_a - mean_a**2, square_b - mean_b**2
        similarity = (2 * mean_a * mean_b + C1) / (mean_a**2 + mean_b**2 + C1)
        similarity = similarity * (2 * covariance + C2) / (variance_a + variance_b + C2)
    return similarity.flatten(1).mean(1)


def _blur(x: Tensor) -> Tensor:
    """Blur the last two dimensions by banded matrices; convolutions of one channel are slow on CPUs."""
    rows, columns = (_window(length).to(x) for length in x.shape[-2:])
    return rows @ x @ columns.T


def _window(length: int) -> Tensor:
    """Return the matrix [length − 10, length] whose row i is the window at pixel i."""
    offset = torch.arange(length) - torch.arange(length - WINDOW_SIDE + 1)[:, None] - WINDOW_SIDE // 2
    weight = (-offset.square() / (2 * WINDOW_SIGMA**2)).exp().where(offset.abs() <= WINDOW_SIDE // 2, 0)
    return weight / weight.sum(1, keepdim=True)
