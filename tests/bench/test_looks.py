"""Looks and adjustments: what a run scores, what its record is called, and what an ablation switches off."""

import json
import sys
from dataclasses import asdict, replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from skimage.metrics import peak_signal_noise_ratio
from torch import nn
from typer.testing import CliRunner

import bench
import dehaze
from bench import cli, compare, record, speed, visibility
from bench.errors import UsageError
from bench.methods.shipped import Model, ablations, identity
from dehaze.adjust import Adjustments
from dehaze.networks import NETWORKS
from dehaze.networks.base import Network
from dehaze.outside import Interface
from tests import toy


class Squared(Network):
    """Darkens by squaring, which grain in skies and the dark of shadows do not bear."""

    finish = Adjustments(skies=1.0, shadows=1.0)

    def forward(self, hazy):
        return hazy.square()


@pytest.fixture(autouse=True)
def squared(monkeypatch):
    monkeypatch.setitem(NETWORKS._entries, "squared", Squared)


@pytest.fixture
def scenes(tmp_path):
    """Write three pairs of a grainy sky above a dark and textured ground."""
    for number in range(3):
        rng = np.random.default_rng(number)
        sky = 180 + rng.integers(-4, 5, (48, 96, 1))
        ground = rng.integers(0, 70, (48, 96, 1))
        hazy = np.concatenate([sky, ground]).repeat(3, 2).astype(np.uint8)
        for kind, pixels in (("hazy", hazy), ("clear", hazy // 2)):
            (tmp_path / "set" / kind).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(tmp_path / "set" / kind / f"{number}.png")
    return tmp_path / "set"


@pytest.fixture
def run(scenes, tmp_path):
    """Run a command on the scenes; return its result and the records in the folder, by the method's name."""

    def ran(*options, model="squared", code=0):
        what = ["--model", model, "--dataset", f"folder:{scenes}", "--metric", "psnr", "--device", "cpu"]
        folders = ["--output", str(tmp_path / "out"), "--save-images", str(tmp_path / "saved")]
        result = CliRunner().invoke(cli.app, ["run", *what, *folders, *options])
        assert result.exit_code == code, result.output
        records = record.read_folder(tmp_path / "out")[0].values() if code == 0 else ()
        return result, {one.method.name: one for one in records}

    return ran


def pixels(path):
    return np.asarray(Image.open(path))


def restored(scenes, look="faithful", **amounts):
    """Restore the scenes without the harness."""
    dehazer = dehaze.load("squared", device="cpu", look=look)
    dehazer = replace(dehazer, adjustments=replace(dehazer.adjustments, **amounts))
    return [dehazer(path).pixels for path in sorted((scenes / "hazy").iterdir())]


def psnr(scenes, images):
    clear = sorted((scenes / "clear").iterdir())
    return np.mean([peak_signal_noise_ratio(pixels(path), image) for path, image in zip(clear, images, strict=True)])


def test_runs_are_faithful_unless_the_photo_is_asked_for(run, scenes, tmp_path):
    _, faithful = run()
    assert list(faithful) == ["squared"]
    _, both = run("--look", "photo")
    assert both == faithful | {"squared (photo)": both["squared (photo)"]}  # neither overwrites the other
    one, other = (both[name] for name in ("squared", "squared (photo)"))
    assert (one.method.look, other.method.look) == ("faithful", "photo")
    assert one.method.adjustments == other.method.adjustments == {}
    assert one.method.model == other.method.model == "squared"
    assert one.key != other.key
    assert one.metrics["psnr"].mean == pytest.approx(psnr(scenes, restored(scenes)), abs=1e-4)
    assert other.metrics["psnr"].mean == pytest.approx(psnr(scenes, restored(scenes, "photo")), abs=1e-4)
    assert sorted(path.name for path in (tmp_path / "saved").iterdir()) == [
        "squared-photo-__folder-set__native-v1", "squared__folder-set__native-v1",
    ]  # fmt: skip
    for options in ((), ("--look", "photo")):
        assert "already scored" in run(*options)[0].stderr


def test_other_amounts_are_part_of_the_name(run, scenes):
    _, made = run("--skies", "0.5", "--shadows", "1")  # shadows are the look's own
    [found] = made.values()
    assert found.method.name == "squared (skies 0.5)"
    assert (found.method.look, found.method.adjustments) == ("faithful", {"skies": 0.5})
    assert found.metrics["psnr"].mean == pytest.approx(psnr(scenes, restored(scenes, skies=0.5)), abs=1e-4)
    _, made = run("--look", "photo", "--shadows", "0", "--method", "mine")
    assert set(made) == {"squared (skies 0.5)", "mine (photo, shadows 0)"}


@pytest.mark.parametrize("look", ["faithful", "photo"])
def test_an_ablation_switches_off_one_adjustment_after_another(look, run, scenes, tmp_path):
    result, made = run("--look", look, "--ablate")
    used = ("skies", "shadows", "brightness")[: 3 if look == "photo" else 2]
    switched_off = [(), *((name,) for name in used), used]
    words = [["photo"] * (look == "photo") + [f"{name} 0" for name in names] for names in switched_off]
    names = ["squared" + (f" ({', '.join(parts)})" if parts else "") for parts in words]
    assert set(made) == set(names)
    for name, off in zip(names, switched_off, strict=True):
        expected = psnr(scenes, restored(scenes, look, **dict.fromkeys(off, 0.0)))
        assert made[name].metrics["psnr"].mean == pytest.approx(expected, abs=1e-4), name
        assert made[name].method.adjustments == dict.fromkeys(off, 0.0)
    assert (
        len({one.metrics["psnr"].mean for one in made.values()})
        == len({one.key for one in made.values()})
        == len(names)
    )
    hazy = pixels(scenes / "hazy/0.png") / 255
    bare = pixels(tmp_path / "saved" / made[names[-1]].stem / "0.png")
    assert np.abs(bare - 255 * hazy**2).max() <= 0.51  # the network alone
    table = [line for line in result.stdout.splitlines() if "folder:set" in line]
    assert [line.partition("  ")[0] for line in table] == names
    assert [line.split()[-3] for line in table] == [f"{made[name].metrics['psnr'].mean:.4g}" for name in names]


def test_an_ablation_leaves_out_what_is_off_already():
    dehazer = dehaze.load("squared", device="cpu", look="faithful")
    dehazer = replace(dehazer, adjustments=Adjustments(shadows=0.5))
    assert [one.adjustments for one in ablations(dehazer)] == [Adjustments(shadows=0.5), Adjustments()]
    with pytest.raises(UsageError, match="dcp makes no adjustments"):
        ablations(dehaze.load("dcp", device="cpu", look="faithful"))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--look", "photo"), "is a model from outside"),
        (("--skies", "0"), "is a model from outside"),
        (("--ablate",), "is a model from outside"),
        (("--look", "vivid"), "'vivid' is not one of 'photo', 'faithful'"),
        (("--colour", "2"), "less than or equal to 1"),
    ],
)
def test_what_cannot_be_adjusted_is_refused_before_it_runs(options, message, run, tmp_path):
    for form in ("build", "restore"):
        failed, _ = run(*options, model=f"{toy.write(tmp_path)}:{form}", code=2)
        assert message in " ".join(failed.stderr.replace("│", " ").split())
    assert not (tmp_path / "out").exists()
    failed = CliRunner().invoke(cli.app, ["speed", "--model", f"{tmp_path / 'net.py'}:build", "--look", "photo"])
    assert failed.exit_code == 2 and "its results are scored as they are" in failed.stderr


def test_a_model_from_outside_has_no_look(run, tmp_path):
    _, made = run(model=f"{toy.write(tmp_path)}:build")
    assert made["net.py:build"].method.look is None and made["net.py:build"].method.adjustments == {}


@pytest.mark.parametrize("look", ["faithful", "photo"])
def test_the_identity_stays_the_identity(look, run, scenes):
    _, made = run("--look", look, model="identity")
    [found] = made.values()
    hazy = [pixels(path) for path in sorted((scenes / "hazy").iterdir())]
    assert found.metrics["psnr"].mean == pytest.approx(psnr(scenes, hazy), abs=1e-4)


def test_a_dehazer_is_scored_in_its_own_look(scenes):
    dataset = f"folder:{scenes}"
    photo = bench.evaluate(dehaze.load("squared", device="cpu"), dataset, metrics=["psnr"])
    faithful = bench.evaluate(dehaze.load("squared", device="cpu", look="faithful"), dataset, metrics=["psnr"])
    assert (photo.method.name, faithful.method.name) == ("squared (photo)", "squared")


def test_adjustments_are_part_of_the_identity_and_the_name_of_the_look_is_not():
    dehazer = dehaze.load("squared", device="cpu", look="faithful")
    assert identity(replace(dehazer, look="photo")) == identity(dehazer)
    for name in asdict(dehazer.adjustments).keys() - {"brightness"}:
        changed = replace(dehazer, adjustments=replace(dehazer.adjustments, **{name: 0.5}))
        assert identity(changed).config_sha256 != identity(dehazer).config_sha256, name
        assert Model(changed).method.name == f"squared ({name} 0.5)"


def test_what_decides_the_brightness_is_part_of_the_identity_where_it_is_changed(monkeypatch):
    head = nn.Linear(2, 2)
    head.config = Interface()  # any configuration
    monkeypatch.setitem(sys.modules, "dehaze.tone", SimpleNamespace(load_tone_head=lambda: head))
    dehazer = dehaze.load("squared", device="cpu", look="faithful")
    brighter = replace(dehazer, adjustments=replace(dehazer.adjustments, brightness=1.0))
    seen = []
    for change in (lambda: None, lambda: nn.init.zeros_(head.weight), lambda: setattr(head, "config", Interface(2))):
        change()
        seen.append((identity(dehazer).config_sha256, identity(brighter).config_sha256))
    assert len({without for without, _ in seen}) == 1 and len({with_ for _, with_ in seen}) == 3


def test_comparisons_do_not_mix_the_looks(run, tmp_path):
    run()
    run("--look", "photo")
    for name in ("squared", "squared (photo)"):
        [path] = compare.find(name, tmp_path / "out")
        assert record.read(path).method.name == name
    what = ["compare", "squared", "squared (photo)", "--results", str(tmp_path / "out")]
    result = CliRunner().invoke(cli.app, what)
    assert result.exit_code == 0 and "B = squared (photo) against A = squared" in result.stdout


def test_speed_names_the_look(monkeypatch):
    seen = []
    load = speed.outside.load
    monkeypatch.setattr(speed.outside, "load", lambda *what, **how: seen.append(how["look"]) or load(*what, **how))
    job = speed.Job("squared", 0.002, device="cpu", runs=3, seconds=0, look="photo")
    assert speed.measure(job).model == "squared (photo)" and seen == ["photo"]


def test_speed_passes_the_look_on(monkeypatch, tmp_path):
    monkeypatch.setattr(speed, "measure_apart", lambda job: speed.Cost(job.name, job.megapixels, threads=1))
    output = tmp_path / "speed.json"
    what = ["speed", "--model", "squared", "--megapixels", "1", "--output", str(output)]
    for options, name in (([], "squared"), (["--look", "photo"], "squared (photo)")):
        CliRunner().invoke(cli.app, [*what, *options], catch_exceptions=True)
        assert json.loads(output.read_text())["rows"][0]["model"] == name


def test_a_density_is_measured_without_adjustments(monkeypatch):
    made = []
    load = visibility.load
    monkeypatch.setattr(visibility, "load", lambda name: made.append(load(name)) or made[-1])
    frame = torch.rand(1, 3, 32, 48, generator=torch.manual_seed(0))
    [meter] = visibility.make_meters(["dcp"]).values()
    expected = replace(made[0], adjustments=Adjustments(skies=1, shadows=1)).restore_tensor(frame)[1]
    assert meter(frame) == pytest.approx(expected.mean().item())
