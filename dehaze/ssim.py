"""Structural similarity (Wang et al. 2004) at each pixel, for the metric and for the training loss."""

from math import exp

import torch
from torch import Tensor

_WEIGHTS = [exp(-(offset**2) / (2 * 1.5**2)) for offset in range(-5, 6)]
WINDOW = [weight / sum(_WEIGHTS) for weight in _WEIGHTS]  # Gaussian of 11 pixels, σ 1.5


def ssim_map(a: Tensor, b: Tensor, peak: float = 1.0) -> Tensor:
    """Return the similarity [..., H − 10, W − 10] of images [..., H, W] in [0, 1] wherever the window fits wholly.

    Population variances, K1 = 0.01, K2 = 0.03; `peak` is the range that K1 and K2 are parts of. Differentiable; half
    precision would lose the variances. Source: Wang, Bovik, Sheikh and Simoncelli 2004, eq. 13.
    """
    c1, c2 = (0.01 * peak) ** 2, (0.03 * peak) ** 2
    mean_a, mean_b, squares, product = _filter(torch.stack([a, b, a * a + b * b, a * b]))
    mean_product, mean_squares = mean_a * mean_b, mean_a**2 + mean_b**2
    # The two variances enter only by their sum.
    variances, covariance = squares - mean_squares, product - mean_product
    return (2 * mean_product + c1) * (2 * covariance + c2) / ((mean_squares + c1) * (variances + c2))


def _filter(x: Tensor) -> Tensor:
    """Filter rows and columns where the window fits; a loop over its taps outruns a float64 convolution 20 times."""
    for axis in (-2, -1):
        length = x.shape[axis] - len(WINDOW) + 1
        y = x.narrow(axis, 0, length) * WINDOW[0]
        for offset, weight in enumerate(WINDOW[1:], start=1):
            y.add_(x.narrow(axis, offset, length), alpha=weight)
        x = y
    return x
