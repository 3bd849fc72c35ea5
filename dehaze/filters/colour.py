"""Luminance."""

from torch import Tensor

LUMINANCE_WEIGHTS = (0.299, 0.587, 0.114)  # Rec. 601


def luminance(colour: Tensor) -> Tensor:
    """Return the luminance [B,1,...] of colours [B,3,...]."""
    red, green, blue = (channel * weight for channel, weight in zip(colour.split(1, 1), LUMINANCE_WEIGHTS, strict=True))
    return red + green + blue
