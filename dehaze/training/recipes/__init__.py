"""Recipes by name: one file for each system, which holds a table of its recipe and its ablations."""

from typing import TYPE_CHECKING

from dehaze.registry import Registry

if TYPE_CHECKING:
    from dehaze.training.recipe import Recipe

RECIPES: Registry["Recipe"] = Registry("recipe")

_NAMES = {  # recipes by file
    "ahg": ("ahg",),
    "api": ("api", "api_no_contrast", "api_no_generator", "api_no_importance", "api_plain"),
    "clip": ("clip",),
    "cliphaze": (
        *("cliphaze_t", "cliphaze_b"),
        *("cliphaze_t_density", "cliphaze_t_global", "cliphaze_t_local", "cliphaze_t_sum"),
    ),
    "draco": ("draco", "draco_published"),
    "progressive": (
        *("progressive_api", "progressive_api_no_contrast", "progressive_api_plain"),
        *("progressive_api_frozen", "progressive_api_frozen_no_contrast"),
        *("progressive_draco", "progressive_draco_no_contrast", "progressive_draco_plain"),
    ),
    "tone": ("tone",),
}
for _file, _names in _NAMES.items():
    for _name in _names:
        RECIPES.register_lazy(_name, f"{__name__}.{_file}:RECIPES[{_name}]")
