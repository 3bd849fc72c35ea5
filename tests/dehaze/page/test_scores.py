import threading

import pytest
from PIL import Image

from dehaze.page import scores


class Scorer:
    """Scores by the size that it sees."""

    METRICS = {"niqe": ("NIQE", "how unnatural"), "fade_refit": ("FADE, refitted", "how foggy")}  # noqa: RUF012
    absent = None

    def measure(self, picture):
        if picture.width < 16:
            return dict.fromkeys(self.METRICS)
        return {"niqe": None if self.absent else float(picture.width), "fade_refit": float(picture.height)}

    def lacking(self, name):
        return self.absent if name == "niqe" else None

    def seconds_per_megapixel(self):
        return {"api": 0.5}


@pytest.fixture
def scorer(monkeypatch):
    scorer = Scorer()
    monkeypatch.setattr(scores, "_scorer", scorer)
    return scorer


def test_without_a_scorer_there_are_no_scores(monkeypatch):
    monkeypatch.setattr(scores, "_scorer", scores._NoScorer())
    assert scores.measured(Image.new("RGB", (20, 20))) == {} and scores.speeds() == {}
    assert "<td>" not in scores.comparison({}, {})


def test_large_photographs_are_scored_on_a_copy(scorer):
    large = Image.new("RGB", (1600, 1200))
    assert scores.measured(large) == {"niqe": 800, "fade_refit": 600} and large.size == (1600, 1200)


def test_what_fails_to_score_costs_nothing_else(scorer, monkeypatch):
    monkeypatch.setattr(scorer, "measure", lambda picture: 1 / 0)
    assert scores.measured(Image.new("RGB", (20, 20))) == {"niqe": None, "fade_refit": None}


def test_pictures_are_scored_one_at_a_time(scorer, monkeypatch):
    at_work = []

    def measure(picture):
        at_work.append(picture)
        assert len(at_work) == 1
        at_work.pop()
        return {"niqe": 1.0, "fade_refit": 1.0}

    monkeypatch.setattr(scorer, "measure", measure)
    threads = [threading.Thread(target=scores.measured, args=(Image.new("RGB", (20, 20)),)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert scores.measured(Image.new("RGB", (20, 20))) == {"niqe": 1.0, "fade_refit": 1.0}


def test_absent_scores_say_why(scorer):
    tiny = scores.measured(Image.new("RGB", (8, 8)))
    assert scores.comparison(tiny, tiny).count("too small to measure") == 2
    scorer.absent = "pip install pyiqa"
    found = scores.measured(Image.new("RGB", (20, 20)))
    assert scores.comparison(found, found).count("this server lacks it (pip install pyiqa)") == 1
    told = "NIQE not measured: this server lacks it (pip install pyiqa)."
    assert told in scores.ranking([scores.Row("a", found)])


def test_comparisons_say_which_is_better(scorer):
    before = {"niqe": 4.0, "fade_refit": 1.0, "density": 0.5}
    table = scores.comparison(before, {"niqe": 5.0, "fade_refit": 0.5, "density": 0.501})
    density, niqe, fade = (part.split("<tr>")[0] for part in table.split("<tr><th scope=row>")[1:])
    assert "unchanged" in density and "50%" in density
    assert "worse" in niqe and "better" in fade
    assert "density" not in scores.comparison(before | {"density": None}, before)


def test_density_has_words():
    words = [scores.in_words(value) for value in (0.0, 0.2, 0.4, 0.6, 1.0)]
    assert words == ["hardly any haze", "light haze", "moderate haze", "dense haze", "very dense haze"]


def test_rankings_name_every_result(scorer):
    rows = [scores.Row("<before>", {"niqe": 4.0, "fade_refit": None})]
    rows.append(scores.Row("api", {"niqe": 3.0, "fade_refit": 0.5, "density": 0.25}, 0.75, 1.25))
    table = scores.ranking(rows)
    assert "&lt;before&gt;" in table and "<td>4.00</td><td>–</td><td></td><td></td>" in table
    assert "<td>3.00</td><td>0.50</td><td>75% → 25%</td><td>1.2 s</td>" in table


def test_long_names_may_break_between_their_words(scorer):
    found = dict.fromkeys(scorer.METRICS)
    assert "progressive:<wbr>a_<wbr>b&lt;" in scores.ranking([scores.Row("progressive:a_b<", found)])
