"""What a run leaves: folders of weights, cards, sheets, scores by held-out pairs, and values for trackers."""

import csv
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.nn import functional as F
from typer.testing import CliRunner

import dehaze
from dehaze.cli import app
from dehaze.errors import DehazeError, WeightsError
from dehaze.hub import load_network, read_card, repository, shipped_folder
from dehaze.training.data import Photos
from dehaze.training.loop import train
from dehaze.training.recipes import RECIPES
from dehaze.training.recipes.api import APIObjective
from dehaze.training.sheet import HEIGHT, make_sheet
from dehaze.training.sources import find_sources
from dehaze.training.start import freeze
from tests.hub import HubServer

QUICK = {"workers": 0, "precision": "fp32"}


def small(**changes):
    plain = partial(APIObjective, generator=False, contrast=False)
    return replace(RECIPES.get("api"), objective=plain, **{"steps": 4, "batch": 2, "crop": 64, "warmup": 0, **changes})


@pytest.fixture(scope="session")
def hazed(data, tmp_path_factory) -> Path:
    """Write ten pairs of the kind of O-HAZE: one scene each, in bluish haze of one day, denser in places."""
    folder = tmp_path_factory.mktemp("hazed")
    for name in ("hazy", "clear"):
        (folder / name).mkdir()
    draws = torch.Generator().manual_seed(0)
    for photo in sorted((data / "images").iterdir())[:10]:
        clear = torch.from_numpy(np.array(Image.open(photo).convert("RGB"))).permute(2, 0, 1) / 255
        uneven = F.interpolate(torch.rand(1, 1, 3, 4, generator=draws), size=clear.shape[1:], mode="bilinear")[0]
        t = torch.exp(-0.6 - 0.8 * uneven)
        hazy = clear * t + torch.tensor([0.55, 0.62, 0.75]).view(3, 1, 1) * (1 - t)
        for name, image in (("clear", clear), ("hazy", hazy)):
            pixels = (image * 255).round().byte().permute(1, 2, 0).numpy()
            Image.fromarray(pixels).save(folder / name / f"{photo.stem}.png")
    return folder


def rows(output: Path) -> list[dict[str, str]]:
    with (output / "log.csv").open() as file:
        return list(csv.DictReader(file))


@pytest.mark.slow
def test_ten_pairs_of_ones_own_are_learned_published_and_loaded(hazed, tmp_path, monkeypatch):
    """The example of docs/train.md, with fewer steps and smaller crops."""
    output = tmp_path / "run"
    command = ["train", "--recipe", "api_plain", "--pairs", hazed, "--start", "shipped", "--output", output]
    command += ["--steps", "24", "--save-every", "8", "--batch", "4", "--crop", "64", "--learning-rate", "1e-3"]
    command = [*map(str, command), "--workers", "0"]
    assert CliRunner().invoke(app, command).exit_code == 0
    with HubServer() as server:
        server.connect(monkeypatch, tmp_path / "cache")
        # The run is done and its card names no licence yet.
        result = CliRunner().invoke(app, [*command, "--push", "org/mine", "--license", "cc-by-4.0"])
        assert result.exit_code == 0 and "has done its 24 steps" in result.output, result.output
        published = dehaze.load("org/mine", device="cpu")
        assert "license: cc-by-4.0" in server.files("model", "org/mine")["README.md"].decode()
    log = rows(output)
    scores = [float(row["pairs_restored"]) for row in log]
    assert [row["step"] for row in log] == ["0", "8", "16", "24"]
    assert max(scores[1:]) > scores[0] + 1  # dB, of the pair that was held out
    assert max(scores[1:]) > float(log[0]["pairs_hazy"]) + 1
    local = dehaze.load("api", output / "best", device="cpu")
    photo = hazed / "hazy" / "04.png"
    assert np.array_equal(local(photo).pixels, published(photo).pixels)
    assert (output / "samples" / "step-24.png").exists()
    card = (output / "best" / "README.md").read_text()
    assert card.startswith("---\nlicense: cc-by-4.0\n")
    assert (output / "best" / "model.safetensors").stat().st_mode & 0o044  # others may read it
    assert "`api`: trained by the recipe `api_plain`" in card and "| pairs | hazed" in card and str(hazed) not in card
    assert f"| pairs_restored | {max(scores)} |" in card


def test_the_best_and_the_last_weights_are_kept(hazed, tmp_path):
    recipe = small(steps=6, learning_rate=0.05)  # which spoils the shipped weights at once
    weights = train(recipe, None, tmp_path, pairs=hazed, start="shipped", save_every=1, keep=2, **QUICK)
    assert {path.name for path in tmp_path.glob("step-*")} == {"step-5", "step-6"}
    log = rows(tmp_path)
    best = max(log, key=lambda row: float(row["pairs_restored"]))
    assert best["step"] == "0"
    shipped = load_file(shipped_folder("api") / "model.safetensors")
    kept, last = (load_file(folder / "model.safetensors") for folder in (tmp_path / "best", weights))
    assert all(torch.equal(kept[key], value) for key, value in shipped.items())
    assert any(not torch.equal(last[key], value) for key, value in shipped.items())
    card = read_card(tmp_path / "best")
    assert card.get("weights_sha256") == load_network("api", tmp_path / "best")[1].sha256
    with pytest.raises(WeightsError, match="names no license"):
        repository("api", tmp_path / "best")
    assert not list(tmp_path.glob(".*"))


def test_a_run_without_gain_ends_early_and_stays_ended(hazed, tmp_path, capsys):
    options = {"pairs": hazed, "start": "shipped", "save_every": 1, "patience": 2, **QUICK}
    for _ in range(2):
        train(small(steps=50, learning_rate=0.05), None, tmp_path, **options)
        assert "stopped at step 2: the last 2 validations were no better" in capsys.readouterr().out
    assert [row["step"] for row in rows(tmp_path)] == ["0", "1", "2"]


def test_parts_of_a_batch_give_the_same_step(hazed, tmp_path):
    options = {"pairs": hazed, "val_pairs": hazed, **QUICK}
    whole = train(small(steps=2, batch=4, learning_rate=1e-4), None, tmp_path / "whole", **options)
    parts = train(small(steps=2, batch=4, learning_rate=1e-4, accumulate=2), None, tmp_path / "parts", **options)
    expected, found = (load_file(folder / "model.safetensors") for folder in (whole, parts))
    # Each part weighs its patches by itself, so that they agree nearly.
    change = max((expected[key] - found[key]).abs().max().item() for key in expected if "threshold" not in key)
    assert change < 3e-4
    assert [row["step"] for row in rows(tmp_path / "parts")] == ["2"]
    with pytest.raises(ValueError, match="the batch of 4 cannot be shared by 3 parts"):
        train(small(batch=4, accumulate=3), None, tmp_path / "other", **options)


def test_frozen_parameters_stay(hazed, tmp_path):
    network = small().network()
    first = next(network.named_children())[0]
    weights = train(small(freeze=(f"{first}.*",)), None, tmp_path, pairs=hazed, start="shipped", **QUICK)
    before, after = (load_file(folder / "model.safetensors") for folder in (shipped_folder("api"), weights))
    frozen = {key for key in before if key.startswith(f"{first}.")}
    assert frozen and all(torch.equal(before[key], after[key]) for key in frozen)
    assert any(not torch.equal(before[key], after[key]) for key in before.keys() - frozen)
    with pytest.raises(DehazeError, match=r"There is no parameter 'nothing\.\*' to freeze"):
        freeze(network, ("nothing.*",))
    with pytest.raises(DehazeError, match="nothing to train"):
        freeze(network, ("*",))


def test_trackers_get_what_the_log_has(hazed, tmp_path):
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    options = {"pairs": hazed, "save_every": 10, "log_with": ["tensorboard"], **QUICK}
    train(small(steps=10), None, tmp_path, name="mine", **options)
    events = event_accumulator.EventAccumulator(str(tmp_path / "mine"))
    events.Reload()
    assert {"l1", "learning_rate", "pairs_restored", "crops_per_second"} <= set(events.Tags()["scalars"])
    tracked = events.Scalars("pairs_restored")[0]
    assert (tracked.step, tracked.value) == (10, pytest.approx(float(rows(tmp_path)[0]["pairs_restored"]), rel=1e-5))
    with pytest.raises(ValueError, match="the tracker 'nosuch' is not installed"):
        train(small(), None, tmp_path / "other", pairs=hazed, log_with=["nosuch"], **QUICK)


def test_what_cannot_be_learned_from_is_refused(data, hazed, tmp_path):
    for arguments, message in (
        ({}, "There is nothing to learn from"),
        ({"data": data, "val_pairs": hazed}, "none to learn from"),
    ):
        with pytest.raises(DehazeError, match=message):
            find_sources(print, **arguments)
    with pytest.raises(ValueError, match="learns nothing from real haze"):
        train(small(), None, tmp_path, pairs=hazed, real=data / "images", **QUICK)
    with pytest.raises(ValueError, match="learns from the density of rendered haze"):
        train(RECIPES.get("clip"), data, tmp_path, pairs=hazed, **QUICK)
    assert not (tmp_path / "checkpoint.safetensors").exists()


def test_pairs_are_held_out_or_given(data, hazed, tmp_path):
    said = []
    sources = find_sources(said.append, pairs=hazed)
    assert [pair.hazy.stem for pair in sources.held_out_pairs] == ["04"] and len(sources.pairs) == 9
    sources = find_sources(said.append, data=data, pairs=hazed, val_pairs=hazed)
    assert len(sources.pairs) == len(sources.held_out_pairs) == 10 and sources.scenes
    assert not said
    for name in ("hazy", "clear"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "0.png").write_bytes((hazed / name / "00.png").read_bytes())
    find_sources(said.append, pairs=tmp_path)
    assert "1 pairs are too few to hold one out" in said[0]


def test_decoded_photographs_stay_within_their_memory(hazed):
    files = sorted((hazed / "clear").iterdir())
    size = np.asarray(Image.open(files[0])).nbytes
    photos = Photos(memory=3 * size)
    first = [photos.read(path) for path in files]
    again = [photos.read(path) for path in files]
    assert [a is b for a, b in zip(first, again, strict=True)] == [True] * 3 + [False] * 7
    assert photos.free == 0
    reduced = Photos(side=20).read(files[0])
    assert min(reduced.size) == 20


def test_photographs_are_read_upright(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned clockwise
    Image.new("RGB", (40, 20)).save(tmp_path / "turned.jpg", exif=exif)
    assert Photos().read(tmp_path / "turned.jpg").size == (20, 40)


def test_pairs_are_of_any_kind_that_is_restored(hazed, tmp_path):
    """TIFF beside JPEG, one of them turned by EXIF; a damaged one is named."""
    for name in ("hazy", "clear"):
        (tmp_path / name).mkdir()
    upright = Image.open(hazed / "clear" / "00.png")
    upright.save(tmp_path / "clear" / "a.tif")
    exif = Image.Exif()
    exif[0x0112] = 6
    upright.transpose(Image.Transpose.ROTATE_90).save(tmp_path / "hazy" / "a.jpg", exif=exif, quality=95)
    sources = find_sources(print, pairs=tmp_path)
    pair = sources.pairs[0]
    hazy, clear = Photos().read(pair.hazy), Photos().read(pair.clear)
    assert hazy.size == clear.size == upright.size
    assert np.abs(np.asarray(hazy, float) - np.asarray(clear, float)).mean() < 8  # JPEG, with reduced chroma
    (tmp_path / "hazy" / "a.jpg").write_bytes(b"no photograph")
    with pytest.raises(DehazeError, match=r"1 of 1 photographs are damaged: .*a\.jpg"):
        find_sources(print, pairs=tmp_path)


def test_a_sheet_has_a_column_for_each_name():
    wide, high = torch.rand(1, 3, 50, 100), torch.rand(1, 1, 80, 40)
    sheet = make_sheet([{"hazy": wide, "density": high}, {"hazy": high, "clear": wide}])
    pixels = np.asarray(sheet)
    assert sheet.width > 2 * HEIGHT + HEIGHT // 2 + 2 * HEIGHT
    assert (pixels[-HEIGHT // 2, 2 * HEIGHT + 10] == 255).all()  # the second row has no density
