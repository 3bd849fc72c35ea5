import pytest

from bench.errors import UnknownMetricError
from bench.report.table import tables
from leaderboard import rank


def standings(records, metrics=None):
    [table] = tables(records)
    found = rank.borda(table, metrics)
    names = [record.method.name for record in table.records]
    return {name: (one.place, one.points, one.share) for name, one in zip(names, found, strict=True)}


def test_points_are_those_worked_out_by_hand(make):
    """Four methods, three voters.

    psnr ↑:      a 30 > b 28 > c 25 > d 20       points 3 2 1 0
    ssim ↑:      b .95 > a .9 = c .9 > d .8      points 1.5 3 1.5 0
    ciede2000 ↓: d 3 < c 4 < b 5 < a 6           points 0 1 2 3
    sum of nine possible                         a 4.5, b 6, c 4.5, d 3
    """
    scores = {"a": (30.0, 0.9, 6.0), "b": (28.0, 0.95, 5.0), "c": (25.0, 0.9, 4.0), "d": (20.0, 0.8, 3.0)}
    records = [
        make(name, {"psnr": psnr, "ssim": ssim, "ciede2000": colour}) for name, (psnr, ssim, colour) in scores.items()
    ]
    assert standings(records) == {
        "b": (1, 6.0, 6 / 9),
        "a": (2, 4.5, 0.5),
        "c": (2, 4.5, 0.5),
        "d": (4, 3.0, 3 / 9),
    }
    assert standings(records, ["ciede2000"])["d"] == (1, 3.0, 1.0)


def test_what_is_missing_gets_no_point(make):
    """b has no ssim, and c has it on five images of six: both get nothing for it, not even from each other."""
    records = [
        make("a", {"psnr": 20.0, "ssim": 0.5}),
        make("b", {"psnr": 30.0}),
        make("c", {"psnr": 25.0, "ssim": 0.9}, counts={"ssim": 5}),
    ]
    assert standings(records) == {"a": (1, 2.0, 0.5), "b": (1, 2.0, 0.5), "c": (3, 1.0, 0.25)}


def test_infinite_values_beat_finite_ones_and_tie(make):
    records = [make("a", {"psnr": None}), make("b", {"psnr": None}), make("c", {"psnr": 99.0})]
    assert standings(records) == {"a": (1, 1.5, 0.75), "b": (1, 1.5, 0.75), "c": (3, 0.0, 0.0)}


def test_one_method_is_first(make):
    assert standings([make("a", {"psnr": 20.0})]) == {"a": (1, 0.0, 1.0)}


@pytest.mark.parametrize(
    ("metrics", "expected"),
    [
        (("psnr", "ssim", "niqe", "fade"), ["psnr", "ssim"]),
        (("niqe", "fade_refit"), ["niqe", "fade_refit"]),
        (("niqe", "fade_refit", "fade"), ["niqe", "fade"]),
    ],
)
def test_voters_are_those_that_know_the_truth_where_there_is_one(make, metrics, expected):
    [table] = tables([make("a", dict.fromkeys(metrics, 1.0))])
    assert rank.voters(table) == expected


def test_an_unknown_metric_is_refused(make):
    [table] = tables([make("a", {"psnr": 20.0})])
    with pytest.raises(UnknownMetricError, match="has no ssim"):
        rank.borda(table, ["ssim"])
