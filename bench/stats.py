"""What a handful of per-image values says: how sure a mean is, and whether two methods differ."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

# Draws held in memory at once: 4 million indices are 32 MB.
_CHUNK = 4_000_000


def bootstrap_mean(
    values: np.ndarray, confidence: float = 0.95, resamples: int = 10_000, seed: int = 0
) -> tuple[float, float]:
    """Return the percentile bootstrap interval of the mean of `values` (at least two, all finite).

    The values are sorted first and the seed is fixed, so the same set of values gives the same interval in any order.
    Source: Efron and Tibshirani 1993, An Introduction to the Bootstrap, chapter 13.
    """
    ordered = np.sort(np.asarray(values, dtype=np.float64))
    if ordered.ndim != 1 or ordered.size < 2 or not np.isfinite(ordered).all():
        raise ValueError(f"an interval needs at least two finite values in one row; got {values!r}")
    rng = np.random.default_rng(seed)
    means = []
    left = resamples
    while left:
        rows = min(left, max(1, _CHUNK // ordered.size))
        means.append(ordered[rng.integers(0, ordered.size, (rows, ordered.size))].mean(axis=1))
        left -= rows
    tail = 50 * (1 - confidence)
    low, high = np.percentile(np.concatenate(means), [tail, 100 - tail])
    return float(low), float(high)


def from_one(ratio: float) -> float:
    """Return how far a ratio is from 1, |ln|: twice is as far as half."""
    return abs(math.log(ratio)) if ratio > 0 else math.inf


def signed_rank(differences: np.ndarray) -> tuple[float, float]:
    """Test whether paired `differences` lie around zero; return the two-sided p-value and the effect in [-1, 1].

    The Wilcoxon signed-rank test on what is not zero, exact for up to 50 differences without ties; the effect is the
    rank-biserial correlation, 1 where every difference is above zero. Only ranks count, so infinite ones may be among
    them. Without any difference p is 1.
    Source: Wilcoxon 1945 as in scipy.stats; Kerby 2014, The simple difference formula.
    """
    from scipy import stats

    differences = np.asarray(differences, dtype=np.float64)
    differences = differences[differences != 0]
    if not differences.size:
        return 1.0, 0.0
    ranks = stats.rankdata(np.abs(differences))
    signed = np.sign(differences) * ranks
    effect = float(signed.sum() / ranks.sum())
    if differences.size == 1:  # a coin thrown once
        return 1.0, effect
    # Ranks in place of differences give the same test; scipy takes no infinite ones.
    result: Any = stats.wilcoxon(signed)  # scipy states no types
    return float(result.pvalue), effect


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values that hold when all of `p_values` are looked at together.

    Source: Holm 1979, A simple sequentially rejective multiple test procedure.
    """
    values = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(values, kind="stable")
    stepped = np.maximum.accumulate(values[order] * np.arange(values.size, 0, -1))
    adjusted = np.empty_like(values)
    adjusted[order] = np.minimum(stepped, 1)
    return adjusted.tolist()
