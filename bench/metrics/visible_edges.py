"""Visible edges: what a restoration brings out of the hazy image, and what it loses to black and white.

Hautière, Tarel, Aubert and Dumont, "Blind contrast enhancement assessment by gradient ratioing at visible edges", Image
Analysis and Stereology 2008. An edge is visible where its local contrast is above 5 %. Three descriptors: e, the rate
of new visible edges; r, the geometric mean of the gradients' growth at the visible edges of the restored image; σ, the
share of pixels that become black or white. Details that the paper leaves open follow the authors' MATLAB code.
"""

from collections.abc import Callable
from functools import partial
from math import inf

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from bench.metrics.base import Metric, MetricSpec
from bench.metrics.fade import grey

WINDOW, STEP = 7, 4
VISIBLE = 0.05 / 2  # the contrast of an edge is twice that of its better side with the threshold between the sides
CHUNK = 1024  # windows taken at once

_PAPER = "of Hautière et al. 2008, restored against hazy image, 8-bit grey, contrast above 5 % in windows of 7×7"
SPECS = {
    "visible_edges_e": MetricSpec(
        "visible_edges_e",
        reference=False,
        direction="up",
        unit="",
        low=-1.0,
        high=inf,
        definition=f"Rate of new visible edges e {_PAPER}",
        hazy=True,
    ),
    "visible_edges_r": MetricSpec(
        "visible_edges_r",
        reference=False,
        direction="up",
        unit="",
        low=0.0,
        high=inf,
        definition=f"Mean ratio of gradients at visible edges r {_PAPER}",
        hazy=True,
    ),
    "visible_edges_sigma": MetricSpec(
        "visible_edges_sigma",
        reference=False,
        direction="down",
        unit="",
        low=0.0,
        high=1.0,
        definition="Share of pixels newly black or white σ of Hautière et al. 2008, restored against hazy image, 8-bit "
        "grey",
        hazy=True,
    ),
}


def spec(name: str) -> MetricSpec:
    """Describe one of `SPECS`."""
    return SPECS[name]


def build(name: str) -> Metric:
    """Return one of `SPECS` ready to be called."""
    descriptor = {
        "visible_edges_e": new_edges,
        "visible_edges_r": gradient_ratio,
        "visible_edges_sigma": newly_saturated,
    }[name]
    return Metric(SPECS[name], partial(_each, descriptor))


def new_edges(restored: np.ndarray, hazy: np.ndarray) -> float:
    """Return e = (n_r - n_o) / n_o of grey levels [H, W], n pixels being on visible edges.

    Infinite if the hazy image has none and the restored one has, NaN if neither has.
    """
    after, before = (np.float64(visible_edges(image).sum()) for image in (restored, hazy))
    with np.errstate(divide="ignore", invalid="ignore"):
        return (after - before) / before


def gradient_ratio(restored: np.ndarray, hazy: np.ndarray) -> float:
    """Return r, the geometric mean of the ratio of Sobel gradients over the visible edges of `restored` [H, W].

    A pixel with no gradient in one of the two counts as unchanged, as in the authors' code. NaN without visible edges.
    """
    visible = visible_edges(restored)
    after, before = (np.hypot(ndimage.sobel(image, 0), ndimage.sobel(image, 1))[visible] for image in (restored, hazy))
    both = (after > 0) & (before > 0)
    with np.errstate(invalid="ignore"):
        return np.exp(np.log(after[both] / before[both]).sum() / np.float64(visible.sum()))


def newly_saturated(restored: np.ndarray, hazy: np.ndarray) -> float:
    """Return σ, the share of pixels of `restored` [H, W] that are 0 or 255 and are not so in `hazy`."""
    return float(np.mean(np.isin(restored, (0, 255)) & ~np.isin(hazy, (0, 255))))


def visible_edges(levels: np.ndarray) -> np.ndarray:
    """Tell which pixels of an image [H, W] of whole grey levels from 0 to 255 lie on a visible edge.

    In each window the threshold s is sought that best parts neighbours of unlike level (Köhler 1981): each pair x ≤ s <
    y has the contrast min((s - x) / s, (y - s) / y), and s is worth the mean over the pairs that it parts. If the best
    one is worth more than half of 5 %, the pixels that it parts are on a visible edge. Windows of 7×7 begin every four
    pixels and go over the right and the lower border into the image mirrored; of each, the pixels but those of its
    first row and column are paired with their left and their upper neighbour.
    """
    height, width = levels.shape
    padded = np.pad(levels, (0, WINDOW - 1), mode="symmetric").astype(np.int32)
    windows = np.lib.stride_tricks.sliding_window_view(padded, (WINDOW, WINDOW))[:height:STEP, :width:STEP]
    rows, columns = windows.shape[:2]
    parted = np.concatenate(
        [_parted(windows[row, left : left + CHUNK]) for row in range(rows) for left in range(0, columns, CHUNK)]
    ).reshape(rows, columns, WINDOW, WINDOW)
    visible = np.zeros_like(padded, dtype=bool)
    for dy, dx in np.ndindex(WINDOW, WINDOW):
        visible[dy : dy + height : STEP, dx : dx + width : STEP] |= parted[:, :, dy, dx]
    return visible[:height, :width]


def _parted(windows: np.ndarray) -> np.ndarray:
    """Return which pixels of each window [N, 7, 7] are parted by its best threshold, none where that is not visible."""
    count = len(windows)
    pixel, left, above = (slice(1, None), slice(1, None)), (slice(1, None), slice(-1)), (slice(-1), slice(1, None))
    ends = [np.stack([windows[:, *pixel], windows[:, *other]]).reshape(2, -1) for other in (left, above)]
    low, high = (pick(*np.concatenate(ends, axis=1)) for pick in (np.minimum, np.maximum))
    window = np.tile(np.repeat(np.arange(count), (WINDOW - 1) ** 2), 2)

    # min((s - x) / s, (y - s) / y) is 1 - x / s up to the geometric mean of x and y, and 1 - s / y from there on. The
    # sum over the pairs that s parts follows from their number, their x and their 1 / y, added up along s: each pair is
    # added where it begins to count and subtracted where it ceases to, however many thresholds lie between.
    unlike = low < high
    x, y, start = low[unlike], high[unlike], 256 * window[unlike]
    first, turn = start + np.maximum(x, 1), start + np.sqrt(x * y).astype(np.int32) + 1

    def summed(begin: np.ndarray, end: np.ndarray, weight: np.ndarray | None = None) -> np.ndarray:
        steps = np.bincount(begin, weight, 256 * count) - np.bincount(end, weight, 256 * count)
        return steps.reshape(count, 256).cumsum(axis=1)[:, 1:]

    s = np.arange(1, 256)
    pairs = summed(first, start + y)
    away = summed(first, turn, x) / s + summed(turn, start + y, 1 / y) * s
    worth = np.where(pairs > 0, 1 - away / np.maximum(pairs, 1), 0).round(12)  # of equals the lowest, not a chance one

    best = worth.argmax(axis=1) + 1
    chosen = (low <= best[window]) & (best[window] < high) & (worth.max(axis=1) > VISIBLE)[window]
    beside, below = chosen.reshape(2, count, WINDOW - 1, WINDOW - 1)
    parted = np.zeros(windows.shape, dtype=bool)
    parted[:, *pixel] = beside | below
    parted[:, *left] |= beside
    parted[:, *above] |= below
    return parted


def _each(descriptor: Callable[[np.ndarray, np.ndarray], float], restored: Tensor, hazy: Tensor) -> Tensor:
    pairs = zip(*(((images * 255).round().byte().cpu().numpy()) for images in (restored, hazy)), strict=True)
    return torch.tensor([descriptor(grey(one), grey(other)) for one, other in pairs], dtype=torch.float64)
