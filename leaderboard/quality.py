"""What the benchmark says of one photograph without its clear scene, and of a model's speed: for the page."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from bench import metrics
from bench.record import RESULTS, read_folder
from leaderboard import figures

# Lower is better in both.
METRICS: Mapping[str, tuple[str, str]] = {
    "niqe": ("NIQE", "how unnatural it looks"),
    "fade_refit": ("FADE, refitted", "how foggy it looks"),
}


def measure(picture: Image.Image) -> dict[str, float | None]:
    """Score an RGB photograph by each of METRICS; None where it is too small or a library is missing."""
    tensor = torch.from_numpy(np.array(picture)).permute(2, 0, 1)[None] / 255
    scores: dict[str, float | None] = {}
    for name in METRICS:
        try:
            scores[name] = None if metrics.lacking(name) else float(metrics.get(name)(tensor))
        except metrics.MetricError:
            scores[name] = None
    return scores


def lacking(name: str) -> str | None:
    """Say what a metric lacks to be computed here, None if nothing."""
    return metrics.lacking(name)


def seconds_per_megapixel(results: Path = RESULTS) -> dict[str, float]:
    """Return the speed of each model on a CPU by the records in `results`, nothing if there is no such folder."""
    return figures.seconds_per_megapixel(read_folder(results)[0].values()) if results.is_dir() else {}
