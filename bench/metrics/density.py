"""How hazy a restored photograph still looks to CLIP: the mean of its haze density, as `dehaze.density` maps it.

By the small CLIP model that ships with `dehaze`, or by another from a folder; scores of two models do not compare.
"""

from pathlib import Path

from torch import Tensor

from bench.errors import MetricError
from bench.metrics.base import Metric, MetricSpec

_SPEC = MetricSpec(
    "density",
    reference=False,
    direction="down",
    unit="",
    low=0.0,
    high=1.0,
    definition="Mean haze density by CLIP: how much nearer each patch is to prompts of haze than of clear air",
)


def spec(name: str) -> MetricSpec:
    """Describe the metric."""
    return _SPEC


def build(name: str, *, clip: Path | None = None) -> Metric:
    """Return the metric; `clip` is the folder of a CLIP model, instead of the one that ships.

    Raises `MetricError` where there is none, or it cannot be read.
    """
    from dehaze.density import load_density
    from dehaze.errors import WeightsError

    try:
        haze = load_density("shipped" if clip is None else clip)
    except WeightsError as error:
        setting = "The metric density takes another CLIP model from --clip DIR."
        raise MetricError.like(error, setting=setting) from error

    def score(restored: Tensor) -> Tensor:
        return haze.to(restored.device).map(restored).mean((1, 2, 3))

    return Metric(_SPEC, score)
