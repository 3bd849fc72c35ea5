"""The atmospheric scattering model (Koschmieder 1924): `I = J·t + A·(1 − t)`, `t = exp(−β·d)`."""

import torch
from torch import Tensor


def transmission(optical_depth: Tensor) -> Tensor:
    """Return the transmission `exp(−τ)` in (0, 1] of an optical depth τ = β·d ≥ 0 of any shape."""
    return torch.exp(-optical_depth)


def scatter(clear: Tensor, transmission: Tensor, airlight: Tensor) -> Tensor:
    """Render haze onto a clear image.

    `clear` [..., 3, H, W] in [0,1], `transmission` [..., 1, H, W] in (0,1], `airlight` [..., 3, 1, 1] or an airlight
    map [..., 3, H, W] in [0,1]. Returns the hazy image in [0,1], shaped as `clear`.
    """
    return clear * transmission + airlight * (1 - transmission)


def srgb_to_linear(image: Tensor) -> Tensor:
    """Decode sRGB values in [0,1] to linear light (IEC 61966-2-1)."""
    return torch.where(image <= 0.04045, image / 12.92, ((image.clamp_min(0) + 0.055) / 1.055) ** 2.4)


def linear_to_srgb(image: Tensor) -> Tensor:
    """Encode linear light in [0,1] as sRGB values (IEC 61966-2-1)."""
    return torch.where(image <= 0.0031308, image * 12.92, 1.055 * image.clamp_min(1e-8) ** (1 / 2.4) - 0.055)
