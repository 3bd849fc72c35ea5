"""The events of the page, called as functions."""

import os
import re
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path

import gradio as gr
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

import app
import dehaze
from bench import environment
from bench.methods.shipped import Model
from bench.record import Method, Record
from dehaze import hub
from dehaze.density import load_density
from dehaze.errors import WeightsError
from dehaze.io.clip import probe_clip
from dehaze.io.photo import read_photo
from dehaze.page import batch, compare, inference, models, photograph, scores, video
from leaderboard import quality
from tests.app.tools import SIZE, record, write_clip, zipped


@pytest.mark.slow
def test_results_keep_what_the_file_says_in_either_format(hazy, tmp_path):
    exif = Image.Exif()
    exif[0x0112], exif[0x0110] = 6, "Old Box Camera"
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    hazy.save(path := tmp_path / "phone.jpg", exif=exif, icc_profile=profile)
    result, _, _ = photograph.run({"path": str(path)}, "dcp", None)
    for form, kind in (("PNG", "PNG"), ("JPEG", "JPEG"), ("as it came", "JPEG")):
        *_, button = photograph.prepare(result, form)
        taken = Image.open(button.value["path"])
        assert (taken.format, taken.size) == (kind, SIZE[::-1])
        assert taken.getexif()[0x0110] == "Old Box Camera" and taken.getexif().get(0x0112, 1) == 1
        assert taken.info["icc_profile"] == profile


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    """A small CLIP of random weights, in the folder of the weights that ship."""
    from dehaze.training.recipes.clip import make_clip, save_clip

    folder = tmp_path_factory.mktemp("weights") / "clip"
    torch.manual_seed(0)
    save_clip(make_clip(width=32, layers=1), folder)
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("by_clip", [False, True])
def test_panel_tells_of_the_strength_that_is_shown(hazy, tmp_path, clip, monkeypatch, by_clip):
    """The density is CLIP's where one ships, else the model's."""
    teller = load_density(clip) if by_clip else None
    monkeypatch.setattr(inference, "haze_estimator", lambda: teller)

    def density(picture):
        if by_clip:
            return teller.map(read_photo(picture).tensor()).mean().item()
        return dehaze.load("api")(picture).density.mean()

    hazy.save(path := tmp_path / "temple.png")
    result, _, _ = photograph.run({"path": str(path)}, "api", None)
    restored = Image.fromarray(dehaze.load("api")(path).pixels)
    half = Image.fromarray(dehaze.load("api")(path, 0.5).pixels)
    table = photograph.score(result, 0.5)
    for name, value in quality.measure(half).items():
        assert f"<td>{result.scores_before[name]:.2f}</td><td>{value:.2f}</td>" in table
    assert f"<td>{density(hazy):.0%}</td><td>{density(half):.0%}</td>" in table
    assert scores.in_words(density(half)) in table and ("CLIP" in table) == by_clip
    *_, (table, *_) = compare.compare({"path": str(path)}, ["api"], None)
    assert f"<td>{density(hazy):.0%} → {density(restored):.0%}</td>" in table


def test_clip_tells_the_haze_as_soon_as_it_ships(clip, tmp_path, monkeypatch):
    for folder, ships in ((tmp_path, False), (clip.parent, True)):
        monkeypatch.setattr(hub, "SHIPPED", folder)
        inference.haze_estimator.cache_clear()
        assert (inference.haze_estimator() is not None) == ships
    inference.haze_estimator.cache_clear()


def test_what_comes_beside_never_costs_a_restoration(hazy, tmp_path, monkeypatch):
    """A CLIP model that cannot be loaded, one that fails, and a density that cannot be drawn."""

    def fail(*arguments):
        raise WeightsError("is damaged", subject="clip")

    hazy.save(path := tmp_path / "temple.png")
    expected = dehaze.load("dcp")(path)
    inference.haze_estimator.cache_clear()
    with monkeypatch.context() as patch:
        patch.setattr(inference, "load_density", fail)
        result, pair, map_ = photograph.run({"path": str(path)}, "dcp", None)
        assert result.density == pytest.approx(expected.density.mean(), abs=1e-3) and map_.is_file()
    inference.haze_estimator.cache_clear()
    for broken in ("haze_density", "density_map"):
        with monkeypatch.context() as patch:
            patch.setattr(photograph, broken, fail)
            result, pair, map_ = photograph.run({"path": str(path)}, "dcp", None)
            assert map_ is None and all(file.is_file() for file in pair)
            assert "FADE" in photograph.score(result, 1)
        kept = result.kept.finished(dehaze.load("dcp"), 1).pixels
        assert np.abs(kept.astype(int) - expected.pixels).max() <= 1  # it is kept in 8 bits


def test_a_number_that_is_being_typed_changes_nothing():
    assert list(photograph.prepare(None, "PNG")) == []
    for nothing in photograph.score(None, 1), photograph.show(None, 1):
        assert nothing["__type__"] == "update"


def test_models_are_introduced_without_being_loaded(monkeypatch):
    monkeypatch.setattr(dehaze, "load", None)
    models.model_choices.cache_clear()
    lines = {name: line for line, name in models.model_choices()}
    assert set(lines) == set(dehaze.list_models()) - {"identity"}
    assert re.fullmatch(r"api\n[\w -]+; apache-2.0, trained on .*, \d+\.\d\d s a megapixel on a CPU", lines["api"])
    assert re.fullmatch(r"dcp\nRestore by the dark channel prior; apache-2.0, not trained, .*", lines["dcp"])


def test_a_card_introduces_its_model(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "SHIPPED", tmp_path)
    (tmp_path / "progressive_api").mkdir()
    card = "---\nlicense: mit\ndatasets: [SUN]\n---\n\n# `progressive:api`: `api` in two rounds\n\nText: more.\n"
    (tmp_path / "progressive_api" / "README.md").write_text(card)
    assert models.introduction("progressive:api", 0.5) == (
        "progressive:api\napi in two rounds; mit, trained on SUN, 0.50 s a megapixel on a CPU"
    )


def test_comparison_shows_every_chosen_model(hazy, tmp_path):
    hazy.save(path := tmp_path / "temple.png")
    *_, (table, *_) = compare.compare({"path": str(path)}, ["dcp", "api"], None)
    rows = re.findall(r"<tr><th scope=row>(.*?)</th>(.*?)</tr>", table)
    assert [name for name, _ in rows] == ["photograph", "dcp", "api"]
    for name in ("dcp", "api"):
        scores = quality.measure(Image.fromarray(dehaze.load(name)(path).pixels))
        cells = re.findall("<td>(.*?)</td>", dict(rows)[name])
        # What a network without maps restores is kept in eight bits, before the curve of the brightness.
        assert [float(cell) for cell in cells[:2]] == pytest.approx([scores["niqe"], scores["fade_refit"]], rel=0.03)


def test_batch_tells_of_each_and_packs_what_there_is(hazy, bad, tmp_path):
    hazy.save(tmp_path / "a.png")
    (tmp_path / "more.zip").write_bytes(zipped({"b.png": (tmp_path / "a.png").read_bytes(), "c.png": b"no"}))
    uploads = [{"path": str(path)} for path in (tmp_path / "a.png", tmp_path / "more.zip", next(iter(bad)))]
    states, buttons = zip(*batch.restore_batch(uploads, "dcp", "photo", 1, "JPEG", None), strict=True)
    assert "0 of 4 done" in states[0] and "4 of 4 done, 2 failed" in states[-2]
    assert "c.png is not an image" in states[-2] and str(tmp_path) not in states[-2]
    with zipfile.ZipFile(buttons[-1].value["path"]) as archive:
        assert archive.namelist() == ["a_dehazed.jpg", "b_dehazed.jpg"]
    with pytest.raises(gr.Error, match="no photograph yet"):
        next(batch.restore_batch(None, "dcp", "photo", 1, "JPEG", None))


@pytest.mark.slow
def test_archives_that_mean_harm_are_explained(hazy, tmp_path):
    """What they do to the reader of archives itself is looked at in the tests of `dehaze.page.batch`."""
    hazy.save(photo := tmp_path / "a.png")
    kinds = {
        "climbing.zip": (zipped({"../../b.png": photo.read_bytes()}), "b.png"),
        "bomb.zip": (zipped({"b.png": bytes(150_000_000)}, zipfile.ZIP_DEFLATED), "more than 100 MB"),
        "nested.zip": (zipped({"b.zip": zipped({"c.png": b"c"})}), "b.zip is not an image"),
        "damaged.zip": (zipped({"b.png": b"b"})[:-30], "damaged.zip"),
        "letter.zip": (b"Dear Sir or Madam", "letter.zip"),
    }
    for name, (data, words) in kinds.items():
        (tmp_path / name).write_bytes(data)
        uploads = [{"path": str(path)} for path in (tmp_path / name, photo)]
        try:
            *_, told, _ = (state for state, _ in batch.restore_batch(uploads, "dcp", "photo", 1, "as it came", None))
            assert "2 of 2 done" in told
        except gr.Error as error:
            told = error.message
        assert words in told and str(tmp_path) not in told, name
    assert not (tmp_path.parent / "b_dehazed.png").exists()


def test_video_tells_how_far_it_is_and_explains(hazy, tmp_path):
    write_clip(tmp_path / "a.mp4", hazy, 3, 10)
    *steps, (last, target) = video.restore_video({"path": str(tmp_path / "a.mp4")}, "api", "photo", 1, None)
    assert [f"{done} of about 3 frames" in words for done, (words, _) in enumerate(steps, 1)] == [True] * 3
    assert "3 frames restored" in last and probe_clip(target).count == 3

    (tmp_path / "b.mp4").write_bytes(b"#EXTM3U\nfile:///etc/passwd")
    with pytest.raises(gr.Error, match=r"b\.mp4 is not an MP4") as error:
        list(video.restore_video({"path": str(tmp_path / "b.mp4")}, "api", "photo", 1, None))
    assert str(tmp_path) not in str(error.value)


def test_polyglots_come_out_as_pictures_alone(hazy, tmp_path):
    hazy.save(path := tmp_path / "both.png")
    path.write_bytes(path.read_bytes() + zipped({"evil.html": b"<script>"}))
    result, _, _ = photograph.run({"path": str(path)}, "dcp", None)
    *_, button = photograph.prepare(result, "as it came")
    assert not zipfile.is_zipfile(button.value["path"])


@pytest.mark.slow
def test_a_zerogpu_space_lends_its_gpu_to_what_infers(tmp_path):
    """Where `spaces` is installed, its decorator is taken, and comes before torch."""
    (tmp_path / "spaces.py").write_text(
        "import sys\nassert 'torch' not in sys.modules\nlent = []\n"
        "def GPU(function):\n    lent.append(function.__name__)\n    return function\n"
    )
    command = "import app, spaces; print(*spaces.lent)"
    path = os.pathsep.join([str(tmp_path), str(Path(app.__file__).parent)])
    done = subprocess.run(
        [sys.executable, "-c", command], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True
    )
    assert done.stdout.split() == ["infer", "find", "finish", "density", "infer_clip"], done.stderr


def test_only_a_few_models_stay_in_memory():
    assert inference.dehazer.cache_parameters()["maxsize"] == inference.MODELS_KEPT


def test_the_explorer_shows_only_what_was_scored():
    found = Record(**{**vars(record("dcp", "sample", 9)), "method": Method(name="dcp", code=environment.code())})
    path = app.SAMPLE / "real" / "golden-temple.jpg"
    picture, as_scored = app.restore_as(found, path)
    assert as_scored and np.array_equal(np.asarray(picture), dehaze.load("dcp", look="faithful")(path).pixels)
    for changed in ({"weights_sha256": "0" * 64}, {"config_sha256": "0" * 64}):
        other = Record(**{**vars(found), "method": replace(found.method, **changed)})
        assert app.restore_as(other, path) is None, changed
    older = Record(**{**vars(found), "method": replace(found.method, code="of another version")})
    assert not app.restore_as(older, path).as_scored
    assert app.restore_as(Record(**{**vars(found), "method": Method(name="theirs")}), path) is None


@pytest.mark.parametrize(("look", "amounts"), [("faithful", {}), ("photo", {}), ("faithful", {"skies": 1.0})])
def test_the_explorer_shows_the_look_that_was_scored(look, amounts):
    dehazer = dehaze.load("dcp", look=look)
    dehazer = replace(dehazer, adjustments=replace(dehazer.adjustments, **amounts))
    found = Record(**{**vars(record("dcp", "sample", 9)), "method": Model(dehazer).method})
    path = app.SAMPLE / "real" / "golden-temple.jpg"
    picture, as_scored = app.restore_as(found, path)
    assert as_scored and np.array_equal(np.asarray(picture), dehazer(path).pixels)
    other = replace(found.method, name="dcp (skies 0.5)", look="faithful", adjustments={"skies": 0.5})
    assert app.restore_as(Record(**{**vars(found), "method": other}), path) is None  # its hash says otherwise
