"""What a handful of per-image values says about their mean."""

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
