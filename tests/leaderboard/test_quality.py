from pathlib import Path

import pytest
from PIL import Image

from bench import metrics
from dehaze.io.photo import read_photo
from leaderboard import quality


@pytest.fixture(scope="module")
def hazy():
    folder = Path(__file__).parents[2] / "bench" / "sample" / "real"
    return Image.open(folder / "golden-temple.jpg").convert("RGB").resize((240, 180))


def test_scores_are_those_of_the_metrics(hazy):
    tensor = read_photo(hazy).tensor()
    expected = {name: float(metrics.get(name)(tensor)) for name in ("niqe", "fade_refit")}
    assert quality.measure(hazy) == pytest.approx(expected)


def test_large_photographs_are_scored_on_a_copy(hazy):
    large = hazy.resize((1600, 1200))
    assert quality.reduced(large).size == (800, 600) and large.size == (1600, 1200)
    assert quality.measure(large) == pytest.approx(quality.measure(quality.reduced(large)))


def test_tiny_photographs_have_no_scores():
    scores = quality.measure(Image.new("RGB", (8, 8)))
    assert scores == {"niqe": None, "fade_refit": None}
    assert quality.comparison(scores, scores).count("too small to measure") == 2


def test_without_its_library_a_score_says_so(hazy, monkeypatch):
    monkeypatch.setattr(metrics, "lacking", lambda name: "pip install pyiqa" if name == "niqe" else None)
    scores = quality.measure(hazy)
    assert scores["niqe"] is None and scores["fade_refit"] > 0
    assert quality.comparison(scores, scores).count("this server lacks it (pip install pyiqa)") == 1
    assert "NIQE not measured: this server lacks it (pip install pyiqa)." in quality.ranking([quality.Row("a", scores)])


def test_comparisons_say_which_is_better():
    before = {"niqe": 4.0, "fade_refit": 1.0, "density": 0.5}
    table = quality.comparison(before, {"niqe": 5.0, "fade_refit": 0.5, "density": 0.501})
    density, niqe, fade = (part.split("<tr>")[0] for part in table.split("<tr><th scope=row>")[1:])
    assert "unchanged" in density and "50%" in density
    assert "worse" in niqe and "better" in fade
    assert "density" not in quality.comparison(before | {"density": None}, before)


def test_density_has_words():
    words = [quality.in_words(value) for value in (0.0, 0.2, 0.4, 0.6, 1.0)]
    assert words == ["hardly any haze", "light haze", "moderate haze", "dense haze", "very dense haze"]


def test_rankings_name_every_result():
    rows = [quality.Row("<before>", {"niqe": 4.0, "fade_refit": None})]
    rows.append(quality.Row("api", {"niqe": 3.0, "fade_refit": 0.5, "density": 0.25}, 0.75, 1.25))
    table = quality.ranking(rows)
    assert "&lt;before&gt;" in table and "<td>4.00</td><td>–</td><td></td><td></td>" in table
    assert "<td>3.00</td><td>0.50</td><td>75% → 25%</td><td>1.2 s</td>" in table


def test_long_names_may_break_between_their_words():
    scores = dict.fromkeys(quality.METRICS)
    assert "progressive:<wbr>a_<wbr>b&lt;" in quality.ranking([quality.Row("progressive:a_b<", scores)])


def test_speed_is_the_median_over_records(make, tmp_path):
    for dataset, seconds in (("a", 0.48), ("b", 0.96), ("c", 4.8)):
        make("api", {"psnr": 20.0}, dataset=dataset, seconds=seconds).write(tmp_path)
    make("dcp", {"psnr": 20.0}, seconds=None).write(tmp_path)
    assert quality.seconds_per_megapixel(tmp_path) == {"api": pytest.approx(2.0)}
    assert quality.seconds_per_megapixel(tmp_path / "none") == {}
