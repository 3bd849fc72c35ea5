"""What cameras and compression do to a photograph before and after the haze (after RIDCP, Wu et al. 2023)."""

import io

import numpy as np
import torch
from PIL import Image
from torch import Tensor


def add_noise(image: Tensor, sigma: float, generator: torch.Generator) -> Tensor:
    """Add Gaussian noise of standard deviation `sigma` (on the scale [0,1]) to [3,H,W]; clipped to [0,1]."""
    return (image + sigma * torch.randn(image.shape, generator=generator)).clamp(0, 1)


def jpeg(image: Tensor, quality: int) -> Tensor:
    """Compress [3,H,W] in [0,1] as JPEG of the given quality (1–95) and decode it again."""
    pixels = image.mul(255).round().byte().permute(1, 2, 0).contiguous().numpy()
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return torch.from_numpy(np.array(Image.open(buffer))).permute(2, 0, 1).float() / 255
