import numpy as np
import pytest
from scipy import stats as scipy_stats

from bench.stats import bootstrap_mean, holm, signed_rank


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


@pytest.mark.slow
@pytest.mark.parametrize(("count", "ties"), [(2, False), (9, False), (30, False), (80, False), (12, True), (60, True)])
def test_signed_rank_agrees_with_scipy_on_the_differences(count, ties):
    differences = np.random.default_rng(count).normal(0.3, 1, count)
    if ties:
        differences = np.round(differences, 1)
    p, effect = signed_rank(differences)
    there = differences[differences != 0]
    assert p == pytest.approx(scipy_stats.wilcoxon(there).pvalue, rel=1e-12)
    larger = scipy_stats.wilcoxon(there, alternative="greater").statistic  # the sum of the ranks above zero
    total = there.size * (there.size + 1) / 2
    assert effect == pytest.approx((2 * larger - total) / total)


def test_signed_rank_by_hand():
    # Five differences above zero: of the 32 equally likely signs, two are as extreme.
    assert signed_rank([1, 2, 3, 4, 5]) == (2 / 32, 1)
    assert signed_rank([-1, -2, -3, -4, -5, 0]) == (2 / 32, -1)
    assert signed_rank([3.0]) == (1, 1)
    assert signed_rank([0.0, 0.0]) == (1, 0)
    assert signed_rank([]) == (1, 0)


def test_an_infinite_difference_is_the_largest():
    finite = [0.5, -0.1, 0.2, 0.3, -0.4, 0.6, 0.7, 9.0]
    assert signed_rank([*finite[:-1], np.inf]) == signed_rank(finite)
    assert signed_rank([-value for value in finite[:-1]] + [-np.inf]) == (
        signed_rank(finite)[0],
        -signed_rank(finite)[1],
    )


def test_holm_by_hand():
    # Smallest first: 0.005 × 4, 0.01 × 3, 0.03 × 2, and 0.04 × 1, which cannot be less than the one before.
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.6, 0.9, 0.5]) == [1, 1, 1]
    assert holm([0.04]) == [0.04]
    assert holm([]) == []


def test_holm_rejects_what_its_definition_rejects():
    """Against the procedure as Holm words it: reject the smallest while p ≤ α / (those left), then stop."""
    chance = np.random.default_rng(0)
    for _ in range(200):
        p_values = chance.beta(0.4, 3, chance.integers(1, 8)).tolist()
        rejected, left = set(), len(p_values)
        for place in np.argsort(p_values):
            if p_values[place] > 0.05 / left:
                break
            rejected.add(place)
            left -= 1
        assert {place for place, p in enumerate(holm(p_values)) if p <= 0.05} == rejected
