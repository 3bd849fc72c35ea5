"""Render haze onto clear photographs: by physics, given their depth, or by a learned generator."""

from dehaze.haze.fields import brownian_field, perlin_field
from dehaze.haze.renderer import HazeMixture, HazeRenderer, Rendered, RendererConfig
from dehaze.haze.scattering import scatter, transmission

__all__ = [
    "HazeMixture",
    "HazeRenderer",
    "Rendered",
    "RendererConfig",
    "brownian_field",
    "perlin_field",
    "scatter",
    "transmission",
]
