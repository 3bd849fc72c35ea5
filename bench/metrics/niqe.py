"""NIQE, the distance of an image's statistics from those of pristine photographs, made of pyiqa's parts.

pyiqa fetches the pristine statistics from the network when its NIQE is made; the same published figures ship in
`data/niqe_pristine.json` (licence and origin in `data/README.md`).
"""

import json
from functools import cache
from importlib.resources import files
from math import inf

import torch
from torch import Tensor

from bench.errors import MetricError
from bench.metrics.base import Metric, MetricSpec

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


def niqe(restored: Tensor) -> Tensor:
    """Return the NIQE [B] of RGB images [B, 3, H, W] in [0, 1], NaN where no two blocks have structure.

    Raises `MetricError` if the images do not hold two whole blocks of 96×96 pixels.
    """
    height, width = (side // BLOCK * BLOCK for side in restored.shape[-2:])
    if height * width < 2 * BLOCK**2:
        height, width = restored.shape[-2:]
        needed = f"needs an image of two blocks of {BLOCK}×{BLOCK} pixels or more"
        raise MetricError(f"{needed}, got {width}×{height}.", "Leave it out.", subject="niqe")
    return torch.stack([_niqe(image[None, :, :height, :width]) for image in restored])


def _niqe(image: Tensor) -> Tensor:
    from pyiqa.matlab_utils import imresize
    from pyiqa.utils.color_util import to_y_channel

    luma = to_y_channel(image, 255, "yiq").round().double()
    half = imresize(luma / 255, scale=0.5, antialiasing=True) * 255
    features = torch.cat([_block_features(luma, BLOCK), _block_features(half, BLOCK // 2)], dim=1)
    whole = features[~features.isnan().any(dim=1)]
    mean, covariance = (statistic.to(features.device) for statistic in _pristine_statistics())
    if len(whole) < 2:
        return features.new_tensor(torch.nan)
    difference = mean - features.nanmean(dim=0)
    return torch.sqrt(difference @ torch.linalg.pinv((covariance + whole.T.cov()) / 2) @ difference)


def _block_features(luma: Tensor, size: int) -> Tensor:
    """Return the 18 features of each block [N, 18] of an image [1, 1, H, W], one row of blocks after the other.

    pyiqa takes all at once, at 400 bytes a pixel. The 7×7 window of the normalisation sees three rows beyond a block.
    """
    from pyiqa.archs.func_util import normalize_img_with_gauss
    from pyiqa.archs.niqe_arch import compute_feature

    features = []
    for top in range(0, luma.shape[2], size):
        above = min(3, top)
        rows = luma[:, :, top - above : top + size + 3]
        normalised = normalize_img_with_gauss(rows, padding="replicate")[0, :, above : above + size]
        features.append(compute_feature(normalised.unfold(2, size, size).permute(2, 0, 1, 3)))
    return torch.cat(features)


@cache
def _pristine_statistics() -> tuple[Tensor, Tensor]:
    entries = json.loads((files("bench.metrics") / "data" / "niqe_pristine.json").read_text())
    mean, covariance = (torch.tensor(entries[key], dtype=torch.float64) for key in ("mean", "covariance"))
    return mean, covariance
