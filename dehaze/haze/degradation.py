"""Degrade photographs as cameras and compression do (after RIDCP, Wu et al. 2023)."""

import io
import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F


def add_noise(image: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of standard deviation `sigma` (in [0,1]) to an image [3,H,W]; clip it to [0,1]."""
    return (image + sigma * torch.randn(image.shape, generator=generator)).clamp(0, 1)


def blur(image: Tensor, sigma: float, share: Tensor) -> Tensor:
    """Blend an image [C,H,W], by `share` [1,H,W] in [0,1], with its Gaussian blur of `sigma` px."""
    offset = torch.arange(-math.ceil(3 * sigma), math.ceil(3 * sigma) + 1.0)
    weights = torch.exp(-0.5 * (offset / sigma) ** 2)
    weights /= weights.sum()
    channels, radius = image.shape[0], len(offset) // 2
    blurred = F.pad(image[None], [radius] * 4, mode="replicate")
    for kernel in (weights.view(1, 1, 1, -1), weights.view(1, 1, -1, 1)):
        blurred = F.conv2d(blurred, kernel.expand(channels, -1, -1, -1), groups=channels)
    return torch.lerp(image, blurred[0], share)


def compress_jpeg(image: Tensor, quality: int) -> Tensor:
    """Compress an image [3,H,W] in [0,1] as JPEG of the given quality (1–95) and decode it."""
    pixels = image.mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1).float() / 255
