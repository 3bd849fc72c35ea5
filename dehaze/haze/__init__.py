"""Automatic haze generation: a physical renderer for clear photographs that have depth."""

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
