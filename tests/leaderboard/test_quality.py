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


def test_tiny_photographs_have_no_scores():
    assert quality.measure(Image.new("RGB", (8, 8))) == {"niqe": None, "fade_refit": None}


def test_without_its_library_a_score_is_missing(hazy, monkeypatch):
    monkeypatch.setattr(metrics, "lacking", lambda name: "pip install pyiqa" if name == "niqe" else None)
    scores = quality.measure(hazy)
    assert scores["niqe"] is None and scores["fade_refit"] > 0
    assert (quality.lacking("niqe"), quality.lacking("fade_refit")) == ("pip install pyiqa", None)


def test_speed_is_the_median_over_records(make, tmp_path):
    for dataset, seconds in (("a", 0.48), ("b", 0.96), ("c", 4.8)):
        make("api", {"psnr": 20.0}, dataset=dataset, seconds=seconds).write(tmp_path)
    make("dcp", {"psnr": 20.0}, seconds=None).write(tmp_path)
    assert quality.seconds_per_megapixel(tmp_path) == {"api": pytest.approx(2.0)}
    assert quality.seconds_per_megapixel(tmp_path / "none") == {}
