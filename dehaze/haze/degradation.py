"""Degrade photographs as cameras and compression do (after RIDCP, Wu et al. 2023)."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def add_noise(image: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of standard deviation `sigma` (in [0,1]) to an image [3,H,W]; clip it to [0,1]."""
    return (image + sigma * torch.randn(image.shape, generator=generator)).clamp(0, 1)


def compress_jpeg(image: Tensor, quality: int) -> Tensor:
    """Compress an image [3,H,W] in [0,1] as JPEG of the given quality (1–95) and decode it."""
    pixels = image.mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1).float() / 255
