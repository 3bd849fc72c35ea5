import pytest
from PIL import Image

from bench.compare import Scored
from bench.record import RESULTS, Row, read
from leaderboard.page import explorer


@pytest.fixture
def pair(make):
    """A and B on three images with both values, and one each that only one of them has."""

    def scored(method, values):
        record = make(method, {"ciede2000": 5.0})
        return Scored(record, {id_: Row(id=id_, values={"ciede2000": value}) for id_, value in values.items()})

    a = scored("old", {"x": 4.0, "y": 6.0, "z": 5.0, "only-a": 1.0})
    return a, scored("new", {"x": 7.0, "y": 2.0, "z": 5.5, "only-b": 9.0})


def test_images_on_which_b_loses_most_come_first(pair):
    found, rows = explorer.side_by_side(*pair, "ciede2000")
    assert rows == [
        ("x", 4.0, 7.0, 3.0),  # lower is better
        ("z", 5.0, 5.5, 0.5),
        ("y", 6.0, 2.0, -4.0),
        ("only-a", 1.0, None, None),
        ("only-b", None, 9.0, None),
    ]
    text = explorer.verdict(found, "old", "new")
    assert "B (**new**) is better than A (**old**) on 1 of 3 images" in text
    assert "-0.1667 ΔE00 on average" in text and "no difference is shown" in text


def test_pictures_are_of_the_sample_set_alone():
    sample, other = (read(RESULTS / f"dcp__{name}.json") for name in ("sample__native-v1", "o-haze-3__long800-v1"))
    asked = []

    def restore(record, photo):
        asked.append(photo.name)
        picture = Image.new("RGB", (4, 4))
        return explorer.Restored(picture, as_scored=not asked[1:]) if record.method.name == "dcp" else None

    shown, text = explorer.pictures((sample, sample), "venice-square", restore)
    assert [caption for _, caption in shown] == ["hazy", "A: dcp", "B: dcp, code of today", "clear"]
    assert asked == ["venice-square.jpg"] * 2 and "None of" not in text
    assert "The code has changed since dcp was scored" in text
    shown, text = explorer.pictures((sample, sample), "real/fog-tree", None)
    assert [caption for _, caption in shown] == ["hazy"] and "None of dcp" in text
    shown, text = explorer.pictures((other, other), "27", restore)
    assert shown == [] and "not ours to show" in text
