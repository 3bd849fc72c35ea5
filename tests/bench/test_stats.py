import numpy as np
import pytest
from scipy import stats as scipy_stats

from bench.stats import bootstrap_mean


@pytest.mark.parametrize("count", [2, 5, 60])
def test_agrees_with_scipy(count):
    values = np.random.default_rng(count).gamma(2.0, size=count)
    low, high = bootstrap_mean(values)
    theirs = scipy_stats.bootstrap(
        (values,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(1)
    ).confidence_interval
    spread = theirs.high - theirs.low
    assert low == pytest.approx(theirs.low, abs=0.03 * spread)
    assert high == pytest.approx(theirs.high, abs=0.03 * spread)


def test_is_the_same_in_any_order_and_any_chunking(monkeypatch):
    values = np.random.default_rng(0).normal(size=40)
    expected = bootstrap_mean(values)
    assert bootstrap_mean(values[::-1]) == expected
    monkeypatch.setattr("bench.stats._CHUNK", 1000)
    assert bootstrap_mean(values) == expected


def test_a_wider_confidence_gives_a_wider_interval():
    values = np.random.default_rng(0).normal(size=20)
    low, high = bootstrap_mean(values, confidence=0.5)
    wide_low, wide_high = bootstrap_mean(values, confidence=0.99)
    assert wide_low < low < values.mean() < high < wide_high


@pytest.mark.parametrize("values", [[], [1.0], [1.0, np.inf], [1.0, np.nan], [[1.0, 2.0], [3.0, 4.0]]])
def test_refuses_what_has_no_interval(values):
    with pytest.raises(ValueError, match="at least two finite"):
        bootstrap_mean(np.array(values))
