"""Draw random fields that make haze non-uniform."""

import math

import torch
from torch import Tensor
from torch.nn import functional as F


def draw_uniform(low: float, high: float, generator: torch.Generator) -> float:
    """Draw one number from U[low, high]."""
    return low + (high - low) * torch.rand((), generator=generator).item()


def draw_ramp(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw a plane [H,W] of random direction and slope, clipped to [0,1]."""
    angle = draw_uniform(0, 2 * math.pi, generator)
    slope, middle = draw_uniform(0, 1, generator), draw_uniform(0.2, 0.7, generator)
    y, x = torch.linspace(-0.5, 0.5, height)[:, None], torch.linspace(-0.5, 0.5, width)
    return (middle + slope * (math.sin(angle) * y + math.cos(angle) * x)).clamp(0, 1)


def perlin_octave(height: int, width: int, scale: float, generator: torch.Generator) -> Tensor:
    """Draw one octave of gradient noise [H,W], in about [−1, 1], with lattice cells of `scale` px (Perlin 1985)."""
    # The random offset (u, v) of the formula in the API paper: without it every octave is 0 at the same corner.
    offset_y, offset_x = torch.rand(2, generator=generator).tolist()
    y = torch.arange(height) / scale + offset_y
    x = torch.arange(width) / scale + offset_x
    cell_y, cell_x = y.long(), x.long()
    in_y, in_x = (y - cell_y)[:, None], (x - cell_x)[None, :]
    angle = torch.rand(int(cell_y[-1]) + 2, int(cell_x[-1]) + 2, generator=generator) * (2 * torch.pi)
    gradient_y, gradient_x = angle.sin(), angle.cos()

    def fade(t: Tensor) -> Tensor:
        return t * t * t * (t * (t * 6 - 15) + 10)

    # Down the few columns of the lattice first: the interpolation is linear in either direction.
    share = fade(in_y)
    along_y = torch.lerp(gradient_y[cell_y] * in_y, gradient_y[cell_y + 1] * (in_y - 1), share)
    along_x = torch.lerp(gradient_x[cell_y], gradient_x[cell_y + 1], share)
    left = torch.addcmul(along_y[:, cell_x], along_x[:, cell_x], in_x)
    right = torch.addcmul(along_y[:, cell_x + 1], along_x[:, cell_x + 1], in_x - 1)
    return torch.lerp(left, right, fade(in_x)) * 2**0.5


def perlin_field(
    height: int,
    width: int,
    generator: torch.Generator,
    *,
    octaves: int = 6,
    persistence: float = 0.5,
    lacunarity: float = 2.0,
    scale: float = 150.0,
) -> Tensor:
    """Draw a multi-octave Perlin field [H,W] in [0.5, 1.5], which preserves the mean density.

    `P = Σ wᵢ·perlin(kᵢ·x + uᵢ, kᵢ·y + vᵢ)`, `wᵢ = pⁱ/Σpʲ`, `kᵢ = lacunarityⁱ` (API, AHG). `scale` is the cell of
    the first octave in px. The rescaling to [0.5, 1.5] is ours.
    """
    weights = torch.tensor([persistence**i for i in range(octaves)])
    field = torch.zeros(height, width)
    for i, weight in enumerate((weights / weights.sum()).tolist()):
        field += weight * perlin_octave(height, width, max(scale / lacunarity**i, 1.0), generator)
    return 1 + 0.5 * field / field.abs().max().clamp_min(1e-6)


def random_perlin_field(height: int, width: int, generator: torch.Generator) -> Tensor:
    """Draw a Perlin field [H,W] in [0.5, 1.5] of 4–8 octaves, persistence 0.3–0.7 and scale 100–200 px (ours)."""
    octaves = int(torch.randint(4, 9, (), generator=generator))
    persistence, scale = draw_uniform(0.3, 0.7, generator), draw_uniform(100, 200, generator)
    return perlin_field(height, width, generator, octaves=octaves, persistence=persistence, scale=scale)


def brownian_field(
    height: int, width: int, generator: torch.Generator, *, walkers: int = 40, steps: int = 800, grid: int = 48
) -> Tensor:
    """Draw blurred visit counts of random walks, [H,W] in [0, 1]: clouds of haze with clear gaps (after HazeFlow)."""
    start = torch.rand(walkers, 1, 2, generator=generator) * grid
    walk = start + torch.randn(walkers, steps, 2, generator=generator).cumsum(1)
    cells = walk.remainder(2 * grid)
    cells = torch.where(cells >= grid, 2 * grid - cells, cells).long().clamp(0, grid - 1)  # reflected at the borders
    counts = torch.bincount((cells[..., 0] * grid + cells[..., 1]).flatten(), minlength=grid * grid)
    counts = counts.view(1, 1, grid, grid).float().log1p()
    for _ in range(2):  # two box filters approximate a Gaussian of σ ≈ 2 cells
        counts = F.avg_pool2d(F.pad(counts, (2, 2, 2, 2), mode="replicate"), 5, stride=1)
    counts = F.interpolate(counts, size=(height, width), mode="bicubic", align_corners=False)[0, 0]
    counts = counts - counts.min()
    return counts / counts.max().clamp_min(1e-6)
