"""How far generated haze is from real haze: `python -m bench.haze_check GENERATED REAL`.

Compares two folders of hazy photographs by the distributions of four statistics of the whole image, and the haze
generator's density of the real ones with FADE's patch map. The scenes of the two folders differ, and with them the
statistics: compare the distances with those of a folder of clear photographs.
"""

import sys
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
import typer
from PIL import Image
from rich.console import Console
from rich.table import Table
from scipy import ndimage, stats
from torch import Tensor
from torch.nn import functional as F

from bench.datasets import SUFFIXES
from bench.errors import BenchError, DatasetError
from bench.metrics.fade import PATCH, Statistics, fog_density, refitted_statistics, released_statistics
from dehaze.errors import DehazeError
from dehaze.io.files import is_hidden

LONG_SIDE = 480  # px: what FADE says of a photograph depends on its size


@dataclass(frozen=True)
class Distance:
    """How two samples of one statistic differ: their means, the Kolmogorov–Smirnov distance, and its p-value."""

    generated: float
    real: float
    ks: float
    p: float


def dark_channel(image: Tensor) -> float:
    """Return the mean dark channel (15×15) of an image [3,H,W] in [0,1]."""
    return float(ndimage.minimum_filter(image.amin(0).numpy(), 15, mode="nearest").mean())


def saturation(image: Tensor) -> float:
    """Return the mean saturation `1 − min/max` of an image [3,H,W] in [0,1]; black has none."""
    low, high = image.amin(0), image.amax(0)
    return float(torch.where(high > 0, 1 - low / high.clamp_min(1e-6), 0).mean())


def contrast(image: Tensor) -> float:
    """Return the standard deviation of the luma (Rec. 601) of an image [3,H,W] in [0,1]."""
    return float((image * torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)).sum(0).std(correction=0))


def measures(statistics: Statistics) -> dict[str, Callable[[Tensor], float]]:
    """Return the four statistics by name, FADE against the Gaussians given."""
    return {
        "dark channel": dark_channel,
        "saturation": saturation,
        "contrast": contrast,
        "FADE": lambda image: fog_density(image, statistics).density,
    }


def compare(generated: Iterable[Tensor], real: Iterable[Tensor], statistics: Statistics) -> dict[str, Distance]:
    """Compare two sets of images [3,H,W] in [0,1] by each of the `measures`; where one is undefined it is left out."""
    named = measures(statistics)
    a, b = (
        np.array([[measure(image) for measure in named.values()] for image in images]) for images in (generated, real)
    )
    return {name: _distance(a[:, i], b[:, i]) for i, name in enumerate(named)}


def _distance(a: np.ndarray, b: np.ndarray) -> Distance:
    a, b = a[np.isfinite(a)], b[np.isfinite(b)]
    result: Any = stats.ks_2samp(a, b)  # scipy states no types
    return Distance(float(a.mean()), float(b.mean()), float(result.statistic), float(result.pvalue))


def agreement(density: Tensor, image: Tensor, statistics: Statistics) -> float:
    """Return Spearman's rank correlation of a density [H,W] with FADE's patch map of the image [3,H,W]."""
    fade = fog_density(image, statistics).map
    pooled = F.avg_pool2d(density[None], PATCH)[0].numpy()
    defined = np.isfinite(fade)
    result: Any = stats.spearmanr(pooled[defined], fade[defined])
    return float(result.statistic)


def read_folder(folder: Path) -> list[Tensor]:
    """Read the images of a folder as [3,H,W] in [0,1], at a long side of 480 px at most, sides multiples of 16."""
    paths = sorted(path for path in folder.glob("*") if path.suffix.lower() in SUFFIXES and not is_hidden(path.name))
    if len(paths) < 2:
        raise DatasetError("holds fewer than two images.", "Give a folder of photographs.", subject=folder)
    return [_read(path) for path in paths]


def _read(path: Path) -> Tensor:
    with Image.open(path) as photo:
        scale = min(1.0, LONG_SIDE / max(photo.size))
        width, height = (max(16, round(side * scale / 16) * 16) for side in photo.size)
        pixels = np.array(photo.convert("RGB").resize((width, height), Image.Resampling.LANCZOS))
    return torch.from_numpy(pixels).permute(2, 0, 1).float() / 255


def main(
    generated: Annotated[Path, typer.Argument(help="Folder of hazy photographs, from `python -m dehaze haze`.")],
    real: Annotated[Path, typer.Argument(help="Folder of real hazy photographs.")],
    fade_stats: Annotated[Path | None, typer.Option(help="Folder with FADE's released statistics.")] = None,
    weights: Annotated[str, typer.Option(help="Of the haze generator.")] = "shipped",
) -> None:
    """Compare generated haze with real haze."""
    from dehaze.haze.generator import load_generator

    try:
        statistics = released_statistics(fade_stats) if fade_stats else refitted_statistics()
        images = read_folder(real)
        distances = compare(read_folder(generated), images, statistics)
        generator = load_generator(weights)
    except (BenchError, DehazeError) as error:
        sys.exit(f"error: {error}")
    table = Table("statistic", "generated", "real", "KS distance", "p", box=None)
    for name, distance in distances.items():
        table.add_row(name, *(f"{value:.3f}" for value in (distance.generated, distance.real, distance.ks, distance.p)))
    console = Console()
    console.print(table)
    with torch.inference_mode():
        ranks = [agreement(generator.encode(image[None])[0, 0], image, statistics) for image in images]
    console.print(f"density against FADE's patch map, rank correlation: mean {np.mean(ranks):.3f} over {len(ranks)}")


if __name__ == "__main__":
    typer.run(main)
