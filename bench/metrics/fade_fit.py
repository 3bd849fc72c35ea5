"""Fit the Gaussians of `fade_refit`: python -m bench.metrics.fade_fit --clear DIR --hazy DIR --output FILE

The released Gaussians lie far from those of all patches of clear and of hazy photographs: they describe crisp patches
and dense fog. So each photograph gives the quarter of its patches that is most of its kind: a clear one those of
highest local deviation, a hazy one those of brightest dark channel.
"""

import argparse
import json
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from tqdm import tqdm

from bench.errors import MetricError
from bench.metrics.fade import FEATURES, Gaussian, features
from dehaze.errors import DehazeError
from dehaze.io.names import find_photos
from dehaze.io.photo import read_photo

SHARE = 0.25


def fit(patches: Iterable[np.ndarray], ranked_by: str) -> Gaussian:
    """Fit a Gaussian to the quarter of each photograph's patches that is highest in one of `FEATURES`.

    `patches` are the features [..., 12] of one photograph after the other; every photograph has the same weight.
    Patches with undefined features are left out. Raises `MetricError` if none is left.
    """
    rank = FEATURES.index(ranked_by)
    means, products = [], []
    for photograph in patches:
        defined = photograph[np.isfinite(photograph).all(axis=-1)]
        if not len(defined):
            continue
        chosen = defined[defined[:, rank] >= np.quantile(defined[:, rank], 1 - SHARE)]
        means.append(chosen.mean(axis=0))
        products.append(chosen.T @ chosen / len(chosen))
    if not means:
        raise MetricError("No photograph to fit has a patch with all features.", "Give photographs with texture.")
    mean = np.mean(means, axis=0)
    return Gaussian(mean, np.mean(products, axis=0) - np.outer(mean, mean))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.metrics.fade_fit", description="Fit fade_refit's Gaussians.")
    parser.add_argument("--clear", type=Path, required=True, help="folder of clear photographs")
    parser.add_argument("--hazy", type=Path, required=True, help="folder of real hazy photographs")
    parser.add_argument("--output", type=Path, required=True, help="JSON file to write")
    arguments = parser.parse_args()
    try:
        entries = {
            kind: _entry([str(path) for path in find_photos([str(folder)]).photos], ranked_by)
            for kind, folder, ranked_by in (
                ("fog_free", arguments.clear, "sigma"),
                ("foggy", arguments.hazy, "dark_channel"),
            )
        }
        arguments.output.write_text(json.dumps(entries, indent=1) + "\n")
    except (DehazeError, MetricError, OSError) as error:
        parser.exit(1, f"{error}\n")


def _entry(paths: list[str], ranked_by: str) -> dict:
    photographs = (features(read_photo(path).tensor()[0]) for path in tqdm(paths, unit="photograph"))
    gaussian = fit(photographs, ranked_by)
    return {
        "photographs": len(paths),
        "mean": gaussian.mean.round(9).tolist(),
        "covariance": gaussian.covariance.round(9).tolist(),
    }


if __name__ == "__main__":
    main()
