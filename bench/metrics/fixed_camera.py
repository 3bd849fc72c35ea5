"""Metrics for pairs from a fixed camera: one place in haze and on a clear day, in another light.

Colours differ between the two for other reasons than haze, so structure is compared, by gradients.
"""

from math import inf

import torch
import torch.nn.functional as F
from torch import Tensor

from bench.metrics.base import Metric, MetricSpec

SPECS = {
    "gradient_correlation": MetricSpec(
        "gradient_correlation",
        reference=True,
        direction="up",
        unit="",
        low=-1.0,
        high=1.0,
        definition="Pearson's correlation over pixels of the gradient magnitudes (Sobel) of luma (BT.601); whatever "
        "gain and offset the exposure brings leave it alone",
    ),
    "gradient_ratio": MetricSpec(
        "gradient_ratio",
        reference=True,
        direction="one",
        unit="",
        low=0.0,
        high=inf,
        definition="Mean gradient magnitude (Sobel) of the restored luma (BT.601) over that of the clear one: below 1 "
        "haze is left, above 1 the result is over-processed; compared by |ln|",
    ),
}


def spec(name: str) -> MetricSpec:
    """Describe one of `SPECS`."""
    return SPECS[name]


def build(name: str) -> Metric:
    """Return one of `SPECS` ready to be called."""
    scores = {"gradient_correlation": gradient_correlation, "gradient_ratio": gradient_ratio}
    return Metric(SPECS[name], scores[name])


def gradient_correlation(restored: Tensor, clear: Tensor) -> Tensor:
    """Return the correlation [B] of the gradient magnitudes of RGB images [B,3,H,W]; NaN where one has no structure."""
    a, b = (gradient_magnitude(image).flatten(1) for image in (restored, clear))
    a, b = a - a.mean(1, keepdim=True), b - b.mean(1, keepdim=True)
    return (a * b).sum(1) / (a.square().sum(1) * b.square().sum(1)).sqrt()


def gradient_ratio(restored: Tensor, clear: Tensor) -> Tensor:
    """Return the ratio [B] of the mean gradient magnitudes of RGB images [B,3,H,W]; NaN where neither has structure."""
    a, b = (gradient_magnitude(image).mean((1, 2)) for image in (restored, clear))
    return a / b


def gradient_magnitude(image: Tensor) -> Tensor:
    """Return the Sobel gradient magnitude [B,H−2,W−2] of the luma of RGB images [B,3,H,W], in float64."""
    weights = torch.tensor([0.299, 0.587, 0.114], dtype=torch.float64, device=image.device)
    luma = torch.einsum("c,bchw->bhw", weights, image.double())[:, None]
    smooth, step = (luma.new_tensor(taps) / scale for taps, scale in (([1, 2, 1], 4), ([-1, 0, 1], 2)))
    down = F.conv2d(luma, torch.outer(step, smooth)[None, None])
    across = F.conv2d(luma, torch.outer(smooth, step)[None, None])
    magnitude = torch.hypot(down, across)[:, 0]
    return magnitude * (magnitude > 1e-9)  # what rounding leaves of a flat image is no gradient
