"""How well a density tells the visibility: its rank correlation with what was measured on site.

A frame's mean haze density should fall as the visibility rises. Frames of one camera show the same scene, so that
nothing but the air decides.
"""

import csv
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bench import metrics, protocol
from bench.errors import DatasetError, UsageError
from dehaze import load
from dehaze.adjust import Adjustments
from dehaze.io.photo import read_photo
from dehaze.networks import NETWORKS
from dehaze.networks.base import EstimatesDensity

TABLE = "index.csv"
PROTOCOL = "long800-v1"  # for the size of the frames
RESAMPLES = 2000
Meter = Callable[[Tensor], float]


@dataclass(frozen=True)
class Frame:
    """A photograph and the visibility in metres that was measured when it was taken."""

    photo: Path
    metres: float


@dataclass(frozen=True)
class Agreement:
    """Spearman's ρ of a meter with the visibility over `frames`, and its 95 % bootstrap interval; −1 is perfect."""

    rho: float
    low: float
    high: float
    frames: int


def read_frames(folder: Path) -> list[Frame]:
    """Read the frames of a folder: `index.csv` with the columns `file` and `visibility_m`. Raises DatasetError."""
    path = folder / TABLE
    try:
        with path.open(newline="", encoding="utf-8") as file:
            frames = [Frame(folder / row["file"], float(row["visibility_m"])) for row in csv.DictReader(file)]
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise DatasetError(
            f"cannot be read ({error}).", "Give a table with the columns file and visibility_m.", subject=path
        ) from None
    if missing := [frame.photo.name for frame in frames if not frame.photo.is_file()]:
        raise DatasetError(f"names files that are not there: {missing[0]} and others.", subject=path)
    if len({frame.metres for frame in frames}) < 3:
        raise DatasetError("has fewer than three different visibilities.", "Add frames.", subject=path)
    return frames


def make_meters(names: Sequence[str], **options: Any) -> dict[str, Meter]:
    """Return meters by name: a model's own mean density, or a metric without reference, such as fade or density.

    `options` are those of `bench.metrics.get`. Raises UsageError for a model that estimates no density.
    """
    return {name: _meter(name, options) for name in names}


def _meter(name: str, options: Mapping[str, Any]) -> Meter:
    if name not in NETWORKS.names():
        metric = metrics.get(name, **options)
        if metric.spec.reference or metric.spec.hazy:
            raise UsageError(f"{name} compares two images, and a frame is one.", "Choose another.")
        return lambda frame: float(metric(frame))
    dehazer = replace(load(name), look=None, adjustments=Adjustments())  # a density is the same in every look
    if not isinstance(dehazer.network, EstimatesDensity):
        raise UsageError(f"{name} estimates no density.", "Choose another model, such as api, or a metric.")

    def density(frame: Tensor) -> float:
        found = dehazer.restore_tensor(frame)[1]
        assert found is not None  # by its class
        return float(found.mean())

    return density


def measure(frames: Sequence[Frame], meters: Mapping[str, Meter]) -> Iterator[dict[str, float]]:
    """Yield what each meter says of each frame, at a long side of 800 px."""
    rules = protocol.get(PROTOCOL)
    for frame in frames:
        image = rules.prepare(read_photo(frame.photo).image().convert("RGB"))
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1)[None].float() / 255
        yield {name: meter(pixels) for name, meter in meters.items()}


def agreement(readings: Sequence[float], metres: Sequence[float], seed: int = 0) -> Agreement:
    """Return Spearman's ρ of readings and metres, with its percentile bootstrap interval over frames."""
    from scipy import stats

    pairs = np.array([readings, metres], dtype=np.float64)
    rng = np.random.default_rng(seed)
    drawn = []
    for _ in range(RESAMPLES):
        some = pairs[:, rng.integers(0, pairs.shape[1], pairs.shape[1])]
        ranks = stats.rankdata(some, axis=1)
        if (ranks.std(axis=1) > 0).all():
            drawn.append(np.corrcoef(ranks)[0, 1])
    found: Any = stats.spearmanr(*pairs)  # scipy states no types
    low, high = np.percentile(drawn, [2.5, 97.5]) if drawn else (np.nan, np.nan)
    return Agreement(float(found.statistic), float(low), float(high), pairs.shape[1])
