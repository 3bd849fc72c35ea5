import numpy as np
import pytest
from PIL import Image

from bench import datasets, protocol
from bench.errors import RunError
from bench.methods.predictions import Predictions
from bench.record import Method

NATIVE = protocol.get("native-v1")


def test_a_prediction_that_changed_is_refused(put, tmp_path):
    put(tmp_path / "set", "a.png")
    put(tmp_path / "theirs", "a.png")
    dataset = datasets.load(f"folder:{tmp_path / 'set'}")
    restorer = Predictions(tmp_path / "theirs", dataset, NATIVE, Method(name="theirs"))
    [sample] = dataset.samples
    hazy = Image.open(sample.hazy)
    assert np.array_equal(
        restorer.restore_image(sample, hazy).pixels, np.asarray(Image.open(tmp_path / "theirs/a.png"))
    )
    Image.new("RGB", (24, 16)).save(tmp_path / "theirs/a.png")
    with pytest.raises(RunError, match="changed while the run went on"):
        restorer.restore_image(sample, hazy)


def test_predictions_may_be_of_any_kind_and_what_systems_keep_is_passed_over(put, tmp_path):
    put(tmp_path / "set", "a.png", "b.png", "c.png")
    put(tmp_path / "theirs", "a.jfif", "b.jp2", "c.tif", "@eaDir/a.png", ".thumbnails/b.png", "._c.png")
    dataset = datasets.load(f"folder:{tmp_path / 'set'}")
    restorer = Predictions(tmp_path / "theirs", dataset, NATIVE, Method(name="theirs"))
    for sample in dataset.samples:
        assert restorer.restore_image(sample, Image.open(sample.hazy)).pixels.shape == (16, 24, 3)
