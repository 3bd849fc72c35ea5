"""What the benchmark says of one photograph without its clear scene, and of a model's speed: for the page."""

from pathlib import Path
from statistics import median

import numpy as np
import torch
from PIL import Image

from bench import metrics
from bench.record import RESULTS, read_folder

# Lower is better in both.
METRICS = {"niqe": ("NIQE", "how unnatural it looks"), "fade_refit": ("FADE, refitted", "how foggy it looks")}


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
    return metrics.lacking(name) or None


def seconds_per_megapixel(results: Path = RESULTS) -> dict[str, float]:
    """Return the median speed of each method on a CPU, over the records in `results` that were timed."""
    found: dict[str, list[float]] = {}
    for record in read_folder(results)[0].values() if results.is_dir() else ():
        if record.speed and record.speed.device == "cpu" and record.speed.megapixels_median:
            speed = record.speed.seconds_median / record.speed.megapixels_median
            found.setdefault(record.method.name, []).append(speed)
    return {name: median(speeds) for name, speeds in found.items()}
