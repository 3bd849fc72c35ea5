"""Expose a restored photograph as a camera would have exposed the clear view: a small network and its curve (ours).

A camera exposes haze darker than the clear view of the same place, so that a restored scene is too dark. How much
cannot be computed; the network has seen clear photographs exposed wrongly, and predicts the curve that undoes it.
"""

import math
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Annotated

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.networks.base import Configured
from dehaze.networks.limits import Width

STRIP_ROWS = 64  # px; some MB of a large photograph
DARKEST = 1e-6  # in [0,1]: below, a pixel is black


@dataclass(frozen=True)
class ToneConfig:
    """Size of the network, and limits of its curve."""

    thumbnail: Annotated[int, Field(ge=8, le=256)] = 32  # px, height and width of what the network sees
    widths: tuple[Width, Width, Width] = (12, 16, 16)
    knots: Annotated[int, Field(ge=3, le=257)] = 17
    shapes: Annotated[int, Field(ge=1, le=16)] = 4  # cosines that make up the logarithm of the slope
    max_slope: Annotated[float, Field(ge=1, le=4)] = 2.2  # bounds the gain of noise, and the loss of detail likewise
    max_darkening: Annotated[float, Field(ge=0, le=0.5)] = 0.04  # display value in [0,1] below the identity
    full_removal: Annotated[float, Field(gt=0, le=1)] = 0.1  # mean change in [0,1] from which the curve is full


class ToneHead(Configured):
    """Predict the curve that exposes a restored photograph well.

    The less was restored, the nearer is the curve to the identity: a clear photograph stays exposed as it was taken.
    """

    config_class = ToneConfig
    cosines: Tensor

    def __init__(self, config: ToneConfig | None = None):
        super().__init__()
        self.config = config = config or ToneConfig()
        widths = 3 + 3 + 2, *config.widths
        self.layers = nn.Sequential(
            *(
                layer
                for inputs, outputs in pairwise(widths)
                for layer in (nn.Conv2d(inputs, outputs, 3, stride=2, padding=1), nn.SiLU())
            )
        )
        self.head = nn.Sequential(
            nn.Linear(2 * widths[-1], widths[-1]), nn.SiLU(), nn.Linear(widths[-1], config.shapes)
        )
        for parameter in self.head[-1].parameters():  # an untrained network changes nothing
            nn.init.zeros_(parameter)
        middles = (torch.arange(config.knots - 1) + 0.5) / (config.knots - 1)
        orders = torch.arange(1, config.shapes + 1)[:, None]
        self.register_buffer("cosines", (torch.pi * orders * middles).cos(), persistent=False)

    def forward(self, hazy: Tensor, restored: Tensor, density: Tensor | None) -> Tensor:
        """Return the curve [B,K]: its values at K evenly spaced inputs in [0,1], from 0 to 1.

        `hazy`, `restored` [B,3,h,w] and `density` 1 − t [B,1,h,w] in [0,1] are copies of any size; None where the
        density is unknown. The curve rises strictly, and keeps the limits of the configuration.
        """
        known = torch.full_like(hazy[:, :1], float(density is not None))
        seen = torch.cat([hazy - 0.5, restored - 0.5, known if density is None else density, known], 1)
        features = self.layers(F.adaptive_avg_pool2d(seen, self.config.thumbnail))
        pooled = torch.cat([features.mean((2, 3)), features.amax((2, 3))], 1)
        removed = (hazy - restored).abs().mean((1, 2, 3))
        amount = (removed / self.config.full_removal).clamp_max(1)
        return self.curve_of(self.head(pooled).float(), amount)

    def curve_of(self, weights: Tensor, amount: Tensor) -> Tensor:
        """Return the curve [B,K] whose slope has a logarithm in proportion to Σ wₖ·cos(k·π·x).

        The absolute sum of the `weights` [B,`shapes`] is squashed below the logarithm of `max_slope`, and the `amount`
        [B] in [0,1] scales them then; with 0 the curve is the identity. A curve that falls too far below the identity
        is blended with it.
        """
        weights = math.log(self.config.max_slope) * weights / (1 + weights.abs().sum(1, keepdim=True))
        weights = amount[:, None] * weights
        pieces = self.config.knots - 1
        rise = (weights @ self.cosines).softmax(1) - 1 / pieces
        below = -rise.cumsum(1).amin(1, keepdim=True)
        share = (self.config.max_darkening / below.clamp_min(1e-6)).clamp_max(1)
        steps = share * rise + 1 / pieces
        return torch.cat([torch.zeros_like(below), steps[:, :-1].cumsum(1), torch.ones_like(below)], 1)


@cache
def load_tone_head(weights: str | Path = "shipped") -> ToneHead:
    """Load the tone head in eval mode, once. `weights` is given as to `dehaze.load`. Raises WeightsError."""
    from dehaze.hub import build_network, find_weights

    with torch.inference_mode(False):  # whoever asks first; others may want gradients
        return build_network("tone", ToneHead, find_weights("tone", weights)).requires_grad_(False)


def curve_gain(value: Tensor, curve: Tensor) -> Tensor:
    """Return curve(v) / v for values v [B,1,h,w] in [0,1] and curves [B,K], piecewise linear: [B,1,h,w]."""
    pieces = curve.shape[1] - 1
    slopes = curve.diff(dim=1) * pieces
    starts = curve[:, :-1] - slopes * torch.linspace(0, 1, pieces + 1, device=curve.device)[:-1]
    piece = (value * pieces).long().clamp_(0, pieces - 1)
    piece += pieces * torch.arange(len(curve), device=curve.device).view(-1, 1, 1, 1)
    slope, start = (of_piece.flatten()[piece] for of_piece in (slopes, starts))
    return slope + start / value.clamp_min(DARKEST)


def toned(image: Tensor, curve: Tensor) -> Tensor:
    """Apply curves [B,K] to `image` [B,3,h,w] in [0,1]: to the brightest channel, and the others in proportion.

    So hue and saturation stay, and no channel exceeds 1.
    """
    return image * curve_gain(image.amax(1, keepdim=True), curve)


@torch.inference_mode()
def apply_curve(image: Tensor, curve: Tensor, amount: float = 1.0) -> Tensor:
    """Apply curves [B,K] to `image` [B,3,H,W] in [0,1] in place, as `toned` does, and return it.

    An `amount` below 1 blends the curve with the identity.
    """
    curve = curve.to(image)
    curve = torch.lerp(torch.linspace(0, 1, curve.shape[1]).to(curve).expand_as(curve), curve, amount)
    # A strip of rows at a time: whole, what is computed on the way would fill memory and caches.
    for strip in image.split(STRIP_ROWS, 2):
        strip.mul_(curve_gain(strip.amax(1, keepdim=True), curve)).clamp_(max=1)  # rounding can exceed 1
    return image
