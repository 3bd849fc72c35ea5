import re
import threading
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio

import dehaze
from bench import datasets, environment, protocol, record, runner
from bench.errors import RunError
from bench.methods.predictions import Predictions
from bench.methods.shipped import Model, identity
from bench.record import Method
from tests.bench.helpers import NATIVE, Counting, Notes, mean_value, psnr, same


def test_scores_what_lies_in_the_files(pairs, tmp_path):
    made = runner.run(Counting(), pairs, NATIVE, psnr(), tmp_path / "out")

    expected = [
        peak_signal_noise_ratio(np.asarray(Image.open(s.clear)), np.asarray(Image.open(s.hazy))) for s in pairs.samples
    ]
    table = pq.read_table(tmp_path / "out" / "identity__folder-set__native-v1.parquet")
    assert table["psnr"].to_pylist() == pytest.approx(expected, abs=1e-5)
    assert table["id"].to_pylist() == ["0", "1", "2", "3"]
    assert table["width"].to_pylist() == [24] * 4
    assert made.metrics["psnr"].mean == pytest.approx(np.mean(expected), abs=1e-5)
    assert made.metrics["psnr"].low <= made.metrics["psnr"].mean <= made.metrics["psnr"].high
    assert made.metrics["psnr"].count == made.dataset.samples == made.dataset.pairs == 4
    assert made.speed.megapixels_median == pytest.approx(24 * 16 / 1e6)
    assert made.speed.device == made.environment["device"] == "cpu"
    assert made.environment["torch"] == torch.__version__.partition("+")[0]
    assert record.read(tmp_path / "out" / "identity__folder-set__native-v1.json") == made
    assert sorted(path.suffix for path in (tmp_path / "out").iterdir()) == [".json", ".parquet"]


def test_the_protocol_comes_before_the_model(put, tmp_path):
    put(tmp_path / "set", "hazy/a.png", "clear/a.png", size=(1600, 4))
    made = runner.run(
        Counting(), datasets.load(f"folder:{tmp_path / 'set'}"), protocol.get("long800-v1"), psnr(), tmp_path / "out"
    )
    hazy, clear = (
        np.asarray(Image.open(tmp_path / "set" / kind / "a.png").resize((800, 2), Image.Resampling.LANCZOS))
        for kind in ("hazy", "clear")
    )
    assert made.metrics["psnr"].mean == pytest.approx(peak_signal_noise_ratio(clear, hazy), abs=1e-5)
    assert made.metrics["psnr"].low is None
    assert made.speed.megapixels_median == pytest.approx(0.0016)


def test_identical_images_are_counted_and_left_out_of_the_mean(put, tmp_path):
    put(tmp_path / "set", "hazy/a.png", "hazy/b.png", "clear/a.png")
    (tmp_path / "set/clear/b.png").write_bytes((tmp_path / "set/hazy/b.png").read_bytes())
    dataset = datasets.load(f"folder:{tmp_path / 'set'}")
    summary = runner.run(Counting(), dataset, NATIVE, psnr(), tmp_path / "out").metrics["psnr"]
    assert (summary.count, summary.infinite) == (1, 1)
    assert 0 < summary.mean < 20

    (tmp_path / "set/clear/a.png").write_bytes((tmp_path / "set/hazy/a.png").read_bytes())
    dataset = datasets.load(f"folder:{tmp_path / 'set'}")
    summary = runner.run(Counting(), dataset, NATIVE, psnr(), tmp_path / "out").metrics["psnr"]
    assert (summary.mean, summary.low, summary.count, summary.infinite) == (None, None, 0, 2)


def test_reference_metrics_need_clear_images(put, tmp_path):
    put(tmp_path / "set", "a.png", "b.png")
    dataset = datasets.load(f"folder:{tmp_path / 'set'}")
    watcher = Notes()
    scores = {"brightness": mean_value(), **psnr()}
    made = runner.run(Counting(), dataset, NATIVE, scores, tmp_path / "out", watcher=watcher)
    assert list(made.metrics) == ["brightness"]
    assert watcher.notes == ["folder:set has no clear images: psnr left out"]
    with pytest.raises(RunError, match="no metric is left"):
        runner.run(Counting(), dataset, NATIVE, psnr(), tmp_path / "out")


def test_a_set_may_hold_both_kinds(put, tmp_path):
    put(tmp_path / "set", "hazy/a.png", "clear/a.png")
    put(tmp_path / "real", "b.png")
    paired, real = (datasets.load(f"folder:{tmp_path / name}") for name in ("set", "real"))
    both = datasets.Dataset("both", paired.samples + real.samples)
    made = runner.run(Counting(), both, NATIVE, {"brightness": mean_value(), **psnr()}, tmp_path / "out")
    assert (made.metrics["psnr"].count, made.metrics["brightness"].count) == (1, 2)
    assert made.failures == ()


def test_what_fails_is_a_row_with_its_reason(put, tmp_path):
    put(tmp_path / "set", *(f"{kind}/{name}.png" for kind in ("hazy", "clear") for name in "abcd"))
    put(tmp_path / "set", "hazy/e.png", "clear/e.png", size=(24, 20))
    (tmp_path / "set/hazy/b.png").write_bytes(b"not an image")
    whole = (tmp_path / "set/clear/c.png").read_bytes()
    (tmp_path / "set/clear/c.png").write_bytes(whole[: len(whole) // 2])
    dataset = datasets.load(f"folder:{tmp_path / 'set'}")
    (tmp_path / "set/hazy/d.png").write_bytes((tmp_path / "set/hazy/a.png").read_bytes())

    scores = {"brightness": mean_value(fail=[20]), **psnr()}
    made = runner.run(Counting(), dataset, NATIVE, scores, tmp_path / "out")
    assert [(failure.id, failure.stage) for failure in made.failures] == [
        ("b", "read"),
        ("c", "read"),
        ("d", "read"),
        ("e", "brightness"),
    ]
    assert made.failures[2].reason == "The file changed while the run went on. Run again."
    assert made.failures[3].reason == "will not have it"
    assert not any(str(tmp_path) in failure.reason for failure in made.failures)
    assert (made.metrics["psnr"].count, made.metrics["brightness"].count) == (2, 1)
    rows = pq.read_table(tmp_path / "out" / f"{made.stem}.parquet").to_pylist()
    assert [row["failure"] is None for row in rows] == [True, False, False, False, False]
    assert rows[4]["psnr"] is not None
    assert rows[4]["brightness"] is None


def test_a_model_that_fails_is_a_row_too(pairs, tmp_path):
    class Broken(Counting):
        def restore_image(self, sample, hazy):
            if sample.id == "1":
                raise torch.OutOfMemoryError("12 GiB wanted")
            made = super().restore_image(sample, hazy)
            return replace(made, pixels=made.pixels[:-1]) if sample.id == "2" else made

    made = runner.run(Broken(), pairs, NATIVE, psnr(), tmp_path / "out")
    assert [(failure.id, failure.stage, failure.reason) for failure in made.failures] == [
        ("1", "restore", "OutOfMemoryError: 12 GiB wanted"),
        ("2", "restore", "The restored image is 24×15, not 24×16."),
    ]
    assert made.metrics["psnr"].count == 2


def test_a_model_is_described_by_its_weights_and_card():
    card = {"license": "apache-2.0", "datasets": ["rendered"], "tags": ["haze"]}
    dehazer = dehaze.load("identity", look="faithful")
    dehazer = replace(dehazer, card=card, weights_sha256="ab", revision="main")
    assert Model(dehazer).method == Method(
        name="identity",
        source="model",
        revision="main",
        weights_sha256="ab",
        config_sha256=identity(dehazer).config_sha256,
        code=environment.code(),
        parameters=0,
        license="apache-2.0",
        trained_on=["rendered"],
        look="faithful",
    )
    one = Model(replace(dehazer, card={"datasets": "rendered"})).method
    assert (one.license, one.trained_on) == (None, ("rendered",))


def test_the_next_image_is_read_beside_the_metrics_and_not_beside_the_model(pairs, tmp_path, monkeypatch):
    events, was_read = [], threading.Semaphore(0)
    begin, read = runner._Reader.begin, runner._read

    def begin_noted(self):
        events.append("begin to read")
        begin(self)

    def read_noted(sample, rules):
        was_read.release()
        return read(sample, rules)

    class Noting(Counting):
        def restore_image(self, sample, hazy):
            events.append("restore")
            was_read.acquire()  # this very image
            return super().restore_image(sample, hazy)

    def score(restored):
        events.append("score")
        if events.count("score") < 4:
            assert was_read.acquire(timeout=60)  # the next one comes without anybody asking for it
            was_read.release()
        return restored.mean(dim=(1, 2, 3))

    monkeypatch.setattr(runner._Reader, "begin", begin_noted)
    monkeypatch.setattr(runner, "_read", read_noted)
    scores = {"brightness": replace(mean_value(), score=score)}
    made = runner.run(Noting(), pairs, NATIVE, scores, tmp_path / "out")
    assert events == ["begin to read", *["restore", "begin to read", "score"] * 4]
    assert made.failures == ()


def test_pictures_are_kept_and_score_as_the_run_did(pairs, tmp_path):
    class Darker(Counting):
        def restore_image(self, sample, hazy):
            made = super().restore_image(sample, hazy)
            return replace(made, pixels=made.pixels // 2)

    pictures = tmp_path / "pictures"
    made = runner.run(Darker(), pairs, NATIVE, psnr(), tmp_path / "out", pictures=pictures)
    theirs = Predictions(pictures / made.stem, pairs, NATIVE, Method(name="theirs"))
    assert runner.run(theirs, pairs, NATIVE, psnr(), tmp_path / "out").metrics == made.metrics

    (pictures / made.stem / "2.png").unlink()
    restorer = Darker()
    again = runner.run(restorer, pairs, NATIVE, psnr(), tmp_path / "out", pictures=pictures)
    assert restorer.asked == ["2"]
    assert same(again, made)
    assert len(list((pictures / made.stem).iterdir())) == 4


def test_pictures_stay_in_their_folder(pairs, tmp_path):
    outside = replace(pairs, samples=(replace(pairs.samples[0], id="../../a"),))
    with pytest.raises(RunError, match=r"'\.\./\.\./a' leads out of the folder"):
        runner.run(Counting(), outside, NATIVE, psnr(), tmp_path / "out", pictures=tmp_path / "pictures")


def test_the_time_is_told_by_what_took_it(pairs, tmp_path):
    class Told(Notes):
        def end(self, text):
            self.notes.append(text)

    watcher = Told()
    runner.run(Counting(), pairs, NATIVE, psnr(), tmp_path / "out", watcher=watcher)
    [text] = watcher.notes
    shares = [float(share) for share in re.findall(r"(?:model|metrics|harness) ([0-9.]+)%", text)]
    assert len(shares) == 3
    assert sum(shares) == pytest.approx(100, abs=0.2)


def test_predictions_are_scored_as_models_are(pairs, put, tmp_path):
    folder = tmp_path / "predictions"
    folder.mkdir()
    for sample in pairs.samples:
        (folder / sample.hazy.name).write_bytes(sample.hazy.read_bytes())
    about = Method(name="theirs", parameters=5, license="MIT", paper="arXiv", trained_on=["outdoor"])
    restorer = Predictions(folder, pairs, NATIVE, about)
    made = runner.run(restorer, pairs, NATIVE, psnr(), tmp_path / "out")
    model = runner.run(Counting(), pairs, NATIVE, psnr(), tmp_path / "out")
    assert made.metrics == model.metrics
    assert made.speed is None
    assert made.method == replace(about, source="predictions", revision=made.method.revision)

    before = made.method.revision
    put(folder, "1.png")
    assert Predictions(folder, pairs, NATIVE, about).method.revision != before


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: (folder / "1.png").unlink(), "no restored image for 1 of folder:set"),
        (lambda folder: Image.new("RGB", (24, 16)).save(folder / "9.png"), "holds 9, which folder:set does not have"),
        (lambda folder: Image.new("RGB", (24, 16)).save(folder / "1.jpg"), "holds 1.jpg and 1.png. Keep one"),
        (lambda folder: Image.new("RGB", (24, 17)).save(folder / "1.png"), "1 is 24×17, not 24×16"),
    ],
)
def test_predictions_must_be_complete_and_of_the_right_size(pairs, put, tmp_path, spoil, message):
    folder = tmp_path / "predictions"
    put(folder, *(f"{number}.png" for number in range(4)))
    spoil(folder)
    with pytest.raises(datasets.DatasetError, match=message):
        Predictions(folder, pairs, NATIVE, Method(name="theirs"))


@pytest.mark.parametrize(
    ("trained_on", "expected"),
    [((), None), (("rendered",), ()), (("NH-HAZE train", "rendered", "nh_haze"), ("NH-HAZE train", "nh_haze"))],
)
def test_training_sets_that_overlap_are_named(pairs, tmp_path, trained_on, expected):
    restorer = Counting()
    restorer.method = replace(restorer.method, trained_on=trained_on)
    made = runner.run(restorer, replace(pairs, name="nh-haze"), NATIVE, psnr(), tmp_path / "out")
    assert made.contaminated == expected
    assert record.read(tmp_path / "out/identity__nh-haze__native-v1.json") == made
