"""Metrics of restored photographs, each with its direction, unit, range and definition.

`get("ssim")(restored, clear)` scores batches [B, 3, H, W] in [0, 1]. Families are imported when first asked for.
"""

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType

from bench.errors import MetricError
from bench.metrics import weights
from bench.metrics.base import Metric, MetricSpec

__all__ = ["Metric", "MetricError", "MetricSpec", "get", "lacking", "names", "prepare", "spec"]

_FAMILIES = {
    "reference": ("psnr", "ssim", "ciede2000"),
    "fixed_camera": ("gradient_correlation", "gradient_ratio"),
    "niqe": ("niqe",),
    "fade": ("fade", "fade_refit"),
    "density": ("density",),
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
    """Describe a metric without loading it; raises `UnknownMetricError` on an unknown name."""
    return _family(name).spec(name)


def get(
    name: str, *, fade_stats: Path | None = None, lpips_weights: Path | None = None, clip: Path | None = None
) -> Metric:
    """Return the metric `name`, ready to be called.

    `fade_stats` is the folder of FADE's released statistics, needed by `fade`; `lpips_weights` a safetensors file for
    `lpips`, which is else fetched once by pyiqa; `clip` the folder of a CLIP model for `density`, instead of the one
    that ships. Raises `MetricError` if the name is unknown or what the metric needs cannot be had.
    """
    options = {"fade": {"fade_stats": fade_stats}, "lpips": {"lpips_weights": lpips_weights}, "density": {"clip": clip}}
    return _family(name).build(name, **options.get(name, {}))


def lacking(name: str) -> str | None:
    """Say what a metric of `names` needs before `get` can make it without network, None if nothing. Loads nothing."""
    if name == "fade":
        return "--fade-stats DIR"
    if name == "density":
        from dehaze.hub import shipped

        return None if shipped("clip") else "--clip DIR"
    if name in ("niqe", *_FAMILIES["perceptual"]) and find_spec("pyiqa") is None:
        return "pip install pyiqa"
    return None if weights.ready(name) else f"python -m bench prepare metric:{name}"


def prepare(name: str, source: Path | None = None) -> None:
    """Put the weights of a metric into the cache: those in `source`, a file or a folder, and else by fetching them.

    The metric is made with them once. Raises `MetricError` if they cannot be had or are not the right ones.
    """
    spec(name)
    if source is not None:
        weights.take(name, source)
    get(name)


def _family(name: str) -> ModuleType:
    for family, members in _FAMILIES.items():
        if name in members:
            return import_module(f"bench.metrics.{family}")
    return import_module("bench.metrics.perceptual")
