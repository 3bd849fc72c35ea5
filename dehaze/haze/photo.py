"""Render hazy versions of a clear photograph of any size with the learned generator."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dehaze.haze.fields import draw_uniform
from dehaze.haze.generator import HazeGenerator, hybrid_density
from dehaze.haze.renderer import HazeRenderer, RendererConfig

DAYLIGHT = RendererConfig(airlight=(0.65, 1.0), airlight_map_share=0)  # darker haze looks like smoke
LONG_SIDE = 512  # px of the reduced copy that the generator sees, near the resolution of its training


@dataclass(frozen=True)
class Hazed:
    """A hazy version of a photograph [1,3,H,W] and its haze density [1,1,H,W], both in [0,1]."""

    hazy: Tensor
    density: Tensor


@torch.inference_mode()
def haze_versions(
    generator: HazeGenerator,
    clear: Tensor,
    rng: torch.Generator,
    count: int,
    *,
    density: float | None = None,
    nonuniform: float = 0.5,
    real: Tensor | None = None,
) -> Iterator[Hazed]:
    """Yield `count` hazy versions of a clear photograph [1,3,H,W] in [0,1], of any size.

    With a hazy photograph `real` [1,3,h,w], its density M_h = E(real), resized to this scene, and its airlight are
    transferred. Otherwise each version draws an airlight and the density M_h of ground under a sky (ours), because the
    depth of the scene is unknown. Each version mixes `α·M_c + (1 − α)·M_h` with α ~ U[0, 0.5], and adds Perlin noise of
    the strength `nonuniform` in [0,1]. Before the noise, the mean density is `density` in (0,1); by default it is that
    of the transferred density, or drawn from U[0.2, 0.7].
    """
    small = reduce_to_generator(clear)
    own = generator.encode(small)
    height, width = own.shape[-2:]
    if real is not None:
        transferred, airlight = generator.encode_with_airlight(reduce_to_generator(real))
        transferred = F.interpolate(transferred, size=(height, width), mode="bilinear", align_corners=False)
    for _ in range(count):
        mean = density
        if real is None:
            transferred, airlight = draw_ground_density(height, width, rng), draw_airlight(rng)
            mean = density or draw_uniform(0.2, 0.7, rng)
        mixed = hybrid_density(own, transferred, draw_uniform(0, 0.5, rng), rng, nonuniform=0)
        if mean is not None:
            mixed = scale_to_mean(mixed, mean)
        mixed = hybrid_density(mixed, mixed, 0.0, rng, nonuniform)
        maps = generator.maps(small, mixed, airlight)
        full = F.interpolate(mixed, size=clear.shape[-2:], mode="bilinear", align_corners=False)
        yield Hazed(generator.apply_maps(clear, full, maps), full)


def draw_ground_density(height: int, width: int, rng: torch.Generator) -> Tensor:
    """Draw the haze density [1,1,H,W] in (0,1) of a ground plane up to a horizon in the upper half, and of the sky."""
    horizon, beta = draw_uniform(0, 0.5, rng), draw_uniform(0.2, 1, rng)
    below = ((torch.arange(height) + 0.5) / height - horizon).clamp_min(0)
    depth = 1 / (below / (1 - horizon) + 0.2) - 1 / 1.2  # in perspective; 0 in the nearest row
    return (1 - torch.exp(-beta * depth)).clamp_min(0.01).view(1, 1, height, 1).expand(1, 1, height, width)


def draw_airlight(rng: torch.Generator) -> Tensor:
    """Draw an airlight [1,3] in [0.2, 1] of daylight, grey or coloured, from the physical renderer."""
    return HazeRenderer(DAYLIGHT).airlight(1, 1, rng).view(1, 3)


def reduce_to_generator(image: Tensor) -> Tensor:
    """Resize a photograph [B,3,H,W] to a long side of at most 512 px, both sides multiples of 16."""
    scale = min(1.0, LONG_SIDE / max(image.shape[-2:]))
    size = [max(16, round(side * scale / 16) * 16) for side in image.shape[-2:]]
    return F.interpolate(image, size=size, mode="bilinear", antialias=True)


def scale_to_mean(density: Tensor, mean: float) -> Tensor:
    """Scale the optical depth of one density [1,1,H,W] in [0,1] so that its mean is `mean` in (0,1)."""
    depth = -torch.log1p(-density.clamp(0.001, 0.999))
    low, high, factor = 1e-3, 1e4, 1.0
    for _ in range(40):  # bisection: the mean rises with the factor
        factor = (low * high) ** 0.5
        low, high = (factor, high) if (1 - torch.exp(-factor * depth)).mean() < mean else (low, factor)
    return 1 - torch.exp(-factor * depth)
