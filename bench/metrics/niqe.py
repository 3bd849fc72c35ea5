"""NIQE, the distance of an image's statistics from those of pristine photographs, computed by pyiqa without a download.

pyiqa fetches the pristine statistics from the network when its NIQE is made; here its function is called with the same
published figures, which ship in `data/niqe_pristine.json` (licence and origin in `data/README.md`).
"""

import json
from functools import cache
from importlib.resources import files
from math import inf

import torch
from torch import Tensor

from bench.metrics.base import Metric, MetricError, MetricSpec

BLOCK = 96

SPECS = {
    "niqe": MetricSpec(
        "niqe",
        reference=False,
        direction="down",
        unit="",
        low=0.0,
        high=inf,
        definition="Natural image quality evaluator of Mittal, Soundararajan and Bovik 2013, published pristine "
        "statistics, luma (BT.601) rounded to 8 bits, 96×96 blocks, no border cut; as pyiqa",
    )
}


def spec(name: str) -> MetricSpec:
    """Describe one of `SPECS`."""
    return SPECS[name]


def build(name: str) -> Metric:
    """Return `niqe` ready to be called."""
    return Metric(SPECS[name], niqe)


def niqe(restored: Tensor, _: Tensor | None = None) -> Tensor:
    """Return the NIQE [B] of RGB images [B, 3, H, W] in [0, 1], NaN where no two blocks have structure.

    Raises `MetricError` if the images do not hold two whole blocks of 96×96 pixels.
    """
    height, width = restored.shape[-2:]
    if (height // BLOCK) * (width // BLOCK) < 2:
        raise MetricError(
            f"niqe needs an image of two blocks of {BLOCK}×{BLOCK} pixels or more, got {width}×{height}: leave it out"
        )
    return torch.stack([_niqe(image[None]) for image in restored])


def _niqe(image: Tensor) -> Tensor:
    from pyiqa.archs.niqe_arch import calculate_niqe

    mean, covariance = _pristine_statistics()
    try:
        return calculate_niqe(image, mu_pris_param=mean, cov_pris_param=covariance)
    except torch.linalg.LinAlgError:  # the statistics of blocks of one colour are not numbers
        return torch.tensor(torch.nan)


@cache
def _pristine_statistics() -> tuple[Tensor, Tensor]:
    entries = json.loads((files("bench.metrics") / "data" / "niqe_pristine.json").read_text())
    return tuple(torch.tensor(entries[key], dtype=torch.float64) for key in ("mean", "covariance"))
