"""Metrics of restored photographs, each with its direction, unit, range and definition.

`get("ssim")(restored, clear)` scores batches [B, 3, H, W] in [0, 1]. Families are imported when first asked for.
"""

from importlib import import_module
from pathlib import Path
from types import ModuleType

from bench.metrics.base import Metric, MetricError, MetricSpec

__all__ = ["Metric", "MetricError", "MetricSpec", "get", "names", "spec"]

_FAMILIES = {
    "reference": ("psnr", "ssim", "ciede2000"),
    "niqe": ("niqe",),
    "fade": ("fade", "fade_refit"),
    "visible_edges": ("visible_edges_e", "visible_edges_r", "visible_edges_sigma"),
    "perceptual": (
        *("ms_ssim", "vif", "fsim", "gmsd", "vsi", "nlpd", "lpips", "dists"),
        *("piqe", "entropy", "brisque", "musiq", "clipiqa", "nima"),
    ),
}


def names() -> list[str]:
    """List the metrics described here; `get` also takes any other name that pyiqa knows."""
    return [name for family in _FAMILIES.values() for name in family]


def spec(name: str) -> MetricSpec:
    """Describe a metric without loading it; raises `MetricError` on an unknown name."""
    return _family(name).spec(name)


def get(name: str, *, fade_stats: Path | None = None, lpips_weights: Path | None = None) -> Metric:
    """Return the metric `name`, ready to be called.

    `fade_stats` is the folder of FADE's released statistics, needed by `fade`; `lpips_weights` a safetensors file for
    `lpips`, which is else fetched once by pyiqa. Raises `MetricError` if the name is unknown or what the metric needs
    cannot be had.
    """
    options = {"fade": {"fade_stats": fade_stats}, "lpips": {"lpips_weights": lpips_weights}}
    return _family(name).build(name, **options.get(name, {}))


def _family(name: str) -> ModuleType:
    for family, members in _FAMILIES.items():
        if name in members:
            return import_module(f"bench.metrics.{family}")
    return import_module("bench.metrics.perceptual")
