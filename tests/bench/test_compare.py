from dataclasses import replace
from math import inf, nan

import numpy as np
import pytest
from scipy import stats as scipy_stats

from bench import compare
from bench.compare import Scored
from bench.errors import RecordError
from bench.record import Row


@pytest.fixture
def scored(make):
    """Make a record from per-image values: {metric: [value, …]}, None where there is none."""

    def build(method, values, **more):
        count = max(map(len, values.values()))
        rows = {}
        for place in range(count):
            there = {name: row[place] for name, row in values.items() if row[place] is not None}
            rows[f"{place:03}"] = Row(id=f"{place:03}", width=4, height=4, values=there)
        environment = more.pop("environment", {})
        record = make(method, {name: 0.0 for name in values}, **more)
        return Scored(replace(record, environment=environment), rows)

    return build


def noise(count, seed, shift=0.0):
    return (20 + shift + np.random.default_rng(seed).normal(size=count)).tolist()


def test_numbers_agree_with_scipy(scored):
    before, after = noise(40, 1), noise(40, 2, shift=1)
    [found] = compare.compare(scored("a", {"psnr": before}), scored("b", {"psnr": after}))
    steps = np.subtract(after, before)
    assert found.mean == pytest.approx(steps.mean())
    assert (found.mean_a, found.mean_b) == pytest.approx((np.mean(before), np.mean(after)))
    assert found.p == pytest.approx(scipy_stats.wilcoxon(after, before).pvalue)
    theirs = scipy_stats.bootstrap(
        (steps,), np.mean, n_resamples=20_000, method="percentile", rng=np.random.default_rng(3)
    ).confidence_interval
    assert (found.low, found.high) == pytest.approx((theirs.low, theirs.high), abs=0.02)
    assert (found.wins, found.ties, found.lost, found.infinite) == ((steps > 0).sum(), 0, 0, 0)
    assert found.verdict == "better"
    assert found.regression() is None


def test_images_are_paired_by_id_not_by_place(scored):
    one = scored("a", {"psnr": [10.0, 20.0, 30.0]})
    other = Scored(one.record, dict(reversed(one.rows.items())))
    [found] = compare.compare(one, other)
    assert (found.mean, found.ties, found.p, found.verdict) == (0, 3, 1, "no difference shown")


def test_down_is_better_where_the_metric_says_so(scored):
    before = noise(30, 1)
    after = [value + 1 + place / 100 for place, value in enumerate(before)]
    values = {"psnr": before, "ciede2000": before}, {"psnr": after, "ciede2000": after}
    up, down = compare.compare(scored("a", values[0]), scored("b", values[1]))
    assert (up.verdict, up.wins) == ("better", 30)
    assert (down.verdict, down.wins) == ("worse", 0)
    assert down.regression() == "ciede2000 is worse by 1.145 ΔE00"
    assert down.regression(tolerance=2) is None
    assert down.regression(tolerance=1) == "ciede2000 is worse by 1.145 ΔE00, more than 1"


def test_p_is_corrected_over_the_metrics(scored):
    before, after = noise(12, 1), noise(12, 2, shift=0.9)
    alone = compare.compare(scored("a", {"psnr": before}), scored("b", {"psnr": after}))
    many = {"psnr": before, "ssim": before, "niqe": before}, {"psnr": after, "ssim": before, "niqe": before}
    together = compare.compare(scored("a", many[0]), scored("b", many[1]))
    assert together[0].p == pytest.approx(3 * alone[0].p)
    chosen = compare.compare(scored("a", many[0]), scored("b", many[1]), ["psnr"])
    assert chosen == alone


def test_few_images_show_nothing_yet_a_tolerance_holds(scored):
    [found] = compare.compare(scored("a", {"psnr": [20.0, 21.0, 22.0]}), scored("b", {"psnr": [17.0, 18.0, 18.5]}))
    assert found.verdict == "no difference shown"
    assert found.high < 0
    assert found.regression() is None
    assert found.regression(tolerance=3.0) == "psnr is worse by 3.167 dB, more than 3"
    assert found.regression(tolerance=3.2) is None


def test_ranks_and_mean_must_agree(scored):
    # Nine in ten a little worse, one in ten much better: the ranks say worse, the mean says better.
    steps = [-0.1 - place / 1e4 for place in range(450)] + [50.0 + place for place in range(50)]
    [found] = compare.compare(scored("a", {"psnr": [20.0] * 500}), scored("b", {"psnr": [20 + step for step in steps]}))
    assert found.p < 0.001 and found.effect < 0 < found.low
    assert found.verdict == "no difference shown"


def test_infinite_values_count_in_ranks_and_wins_but_not_in_means(scored):
    identical = scored("identity", {"psnr": [inf] * 12})
    harmful = scored("b", {"psnr": [30.0 + place for place in range(11)] + [inf]})
    [found] = compare.compare(identical, harmful)
    assert (found.mean, found.low, found.infinite, found.wins, found.ties) == (None, None, 12, 0, 1)
    assert found.verdict == "worse"
    assert found.regression(tolerance=100) == "psnr is worse by inf dB, more than 100"
    [back] = compare.compare(harmful, identical)
    assert (back.verdict, back.wins, back.regression(tolerance=0)) == ("better", 11, None)


def test_what_b_no_longer_scores_is_a_step_back(scored):
    one, other = scored("a", {"psnr": [20.0, 21.0, nan]}), scored("b", {"psnr": [25.0, None, 25.0]})
    [found] = compare.compare(one, other)
    assert (found.lost, list(found.differences)) == (1, ["000"])
    assert found.regression(tolerance=100) == "psnr has no value on 1 of the images where there was one"
    [back] = compare.compare(other, one)
    assert back.lost == 1  # not a number is no value


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"protocol": "long800-v1"}, "native-v1 and long800-v1 are different protocols"),
        ({"fingerprint": "cd" * 32}, r"sample \(abababab\) and sample \(cdcdcdcd\) hold different images"),
        ({"environment": {"psnr_weights": "b"}}, "psnr was not computed alike"),
    ],
)
def test_what_must_not_be_compared(scored, changes, message):
    one = scored("a", {"psnr": [20.0, 21.0]}, environment={"psnr_weights": "a"})
    other = scored("b", {"psnr": [20.0, 21.0]}, **{"environment": {"psnr_weights": "a"}} | changes)
    with pytest.raises(RecordError, match=message):
        compare.compare(one, other)
    if "environment" not in changes:
        with pytest.raises(RecordError, match=message):
            compare.pairs([one], [other])


def test_metrics_must_be_in_both(scored):
    one, other = scored("a", {"psnr": [20.0]}), scored("b", {"ssim": [0.5]})
    with pytest.raises(RecordError, match="a and b have no metric in common"):
        compare.compare(one, other)
    with pytest.raises(RecordError, match=r"ssim is not in both records\. Both have psnr"):
        compare.compare(one, scored("b", {"psnr": [20.0], "ssim": [0.5]}), ["ssim"])


def test_records_are_paired_by_set_and_protocol(scored):
    values = {"psnr": [20.0, 21.0]}
    ours = [scored("a", values, dataset=name) for name in ("x", "y")]
    theirs = [scored("b", values, dataset=name) for name in ("y", "z")]
    assert [(one.record.dataset.name, other.record.dataset.name) for one, other in compare.pairs(ours, theirs)] == [
        ("y", "y")
    ]
    with pytest.raises(RecordError, match="no data set under one protocol in common: x, native-v1; y"):
        compare.pairs(ours, [scored("b", values, dataset=name) for name in ("v", "w")])
    with pytest.raises(RecordError, match="hold different images"):
        compare.pairs(ours, [scored("b", values, dataset="y", fingerprint="cd"), theirs[1]])


def test_find_takes_a_file_or_a_method(make, tmp_path):
    path = make("a b", {"psnr": 20.0}).write(tmp_path)
    make("a b", {"psnr": 20.0}, protocol="long800-v1").write(tmp_path)
    assert compare.find(str(path), tmp_path / "nowhere") == [path]
    assert compare.find("a b", tmp_path, protocol="native-v1") == [path]
    assert len(compare.find("a b", tmp_path)) == 2
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(
        RecordError, match=r"No record is of 'c'. There are records of a b. Not all files can be read: .*broken"
    ):
        compare.find("c", tmp_path)
