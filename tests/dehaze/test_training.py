import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from dataclasses import replace
from functools import partial
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from pkgutil import iter_modules

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file
from torch.utils.data import DataLoader

import dehaze
from dehaze.errors import DehazeError, OutputError, UnknownModelError, WeightsError
from dehaze.haze import HazeRenderer, RendererConfig
from dehaze.hub import load_network
from dehaze.networks.base import EstimatesDensity
from dehaze.training import recipes
from dehaze.training.checkpoint import TrainingState
from dehaze.training.data import Photos, RealHaze, RenderedCrops, Scene, find_scenes, random_crop, without_damaged
from dehaze.training.loop import learning_rate_factor, train
from dehaze.training.pairs import MixedCrops, find_pairs
from dehaze.training.recipes import RECIPES
from dehaze.training.recipes.api import APIObjective
from dehaze.training.validation import psnr, validate


def small(**changes):
    plain = partial(APIObjective, generator=False, contrast=False)
    return replace(RECIPES.get("api"), objective=plain, **{"steps": 6, "batch": 2, "crop": 64, "warmup": 0, **changes})


class TestData:
    def test_validation_is_apart_and_stays_the_same(self, data):
        training, validation = find_scenes(data)
        assert len(training) + len(validation) == 24
        assert not set(training) & set(validation)
        assert find_scenes(data) == (training, validation)

    def test_a_photograph_without_depth_is_named(self, data, tmp_path):
        (tmp_path / "images").mkdir()
        (tmp_path / "images" / "lonely.jpg").write_bytes((data / "images" / "00.jpg").read_bytes())
        with pytest.raises(DehazeError, match=r"lonely\.jpg has no depth"):
            find_scenes(tmp_path)
        with pytest.raises(DehazeError, match="Give the folder above"):
            find_scenes(tmp_path / "images")

    def test_depth_follows_the_photograph(self, data):
        scene = find_scenes(data)[0][0]
        clear, depth = random_crop(scene, 32, torch.Generator().manual_seed(0))
        assert clear.shape == (3, 32, 32)
        assert depth.shape == (32, 32)
        assert (depth.diff(dim=0) <= 1e-6).all()  # the files are near at the bottom

    def test_crops_are_of_the_share_that_is_asked_for(self, data):
        scene = find_scenes(data)[0][0]  # its depth rises evenly from the bottom

        def heights(smallest: float) -> list[float]:
            crops = [random_crop(scene, 32, torch.Generator().manual_seed(seed), smallest)[1] for seed in range(50)]
            return [(depth.max() - depth.min()).item() for depth in crops]

        whole, halves = heights(1.0), heights(0.5)
        assert min(whole) == pytest.approx(max(whole), abs=0.03)
        assert 0.45 < min(halves) / max(whole) < 0.6
        assert 0.9 < max(halves) / max(whole) <= 1.03

    def test_a_sample_depends_on_seed_and_index_alone(self, data):
        scenes, _ = find_scenes(data)

        def crops(start: int, seed: int = 0) -> RenderedCrops:
            return RenderedCrops(scenes, HazeRenderer(), size=32, seed=seed, start=start, stop=60)

        for key in ("hazy", "clear", "density"):
            assert torch.equal(crops(0)[37][key], crops(30)[7][key])
            assert not torch.equal(crops(0)[37]["hazy"], crops(0, seed=1)[37]["hazy"])
        here, there = (list(DataLoader(crops(0), 4, num_workers=n)) for n in (0, 2))
        assert all(torch.equal(a["hazy"], b["hazy"]) for a, b in zip(here, there, strict=True))

    def test_an_epoch_shows_every_scene_once(self, data):
        scenes, _ = find_scenes(data)
        shown = [np.random.default_rng((0, epoch)).permutation(len(scenes)).tolist() for epoch in range(2)]
        assert sorted(shown[0]) == sorted(shown[1]) == list(range(len(scenes)))
        assert shown[0] != shown[1]

    def test_real_haze_comes_along_where_it_is_given(self, data, tmp_path):
        scenes, _ = find_scenes(data)
        real = RealHaze(data / "images")
        crops = RenderedCrops(scenes, HazeRenderer(), size=32, seed=0, start=0, stop=4, real=real)
        without = RenderedCrops(scenes, HazeRenderer(), size=32, seed=0, start=0, stop=4)
        assert crops[0]["real"].shape == (3, 32, 32)
        assert torch.equal(crops[1]["real"], crops[1]["real"])
        assert not torch.equal(crops[1]["real"], crops[2]["real"])
        assert torch.equal(crops[1]["hazy"], without[1]["hazy"])
        with pytest.raises(DehazeError, match="real hazy photographs"):
            RealHaze(tmp_path)


def test_damaged_photographs_are_named_and_left_out(data, tmp_path):
    whole = [shutil.copy(data / "images" / "00.jpg", tmp_path / f"{number:03}.jpg") for number in range(200)]
    paths, told = [Path(path) for path in whole], []
    assert without_damaged(paths, told.append) == paths and not told
    paths[7].write_bytes(paths[7].read_bytes()[:500])
    paths[9].write_bytes(b"no photograph")
    assert without_damaged(paths, told.append) == [path for path in paths if path not in (paths[7], paths[9])]
    assert len(told) == 1 and told[0].startswith("2 of 200") and "007.jpg" in told[0] and "009.jpg" in told[0]
    paths[11].write_bytes(b"")
    with pytest.raises(
        DehazeError, match=r"3 of 200 photographs are damaged: .*007\.jpg .*011\.jpg .*Replace or remove"
    ):
        without_damaged(paths, told.append)
    scene = Scene(paths[0], paths[7])
    with pytest.raises(DehazeError, match=r"1 of 1 photographs are damaged: .*007\.jpg"):
        without_damaged([scene], told.append)


def test_depth_is_repaired_where_a_scene_has_classes(data, tmp_path):
    photo, depth = data / "images" / "00.jpg", data / "depth" / "00.png"
    with Image.open(depth) as image:
        size, near = image.size, np.asarray(image.convert("L"))
    sky = tmp_path / "sky.png"
    classes = Image.new("P", size, 10)
    classes.putpalette([value for index in range(20) for value in (index, 0, 0)])
    classes.save(sky)
    Image.fromarray(np.full_like(near, 20)).save(far := tmp_path / "far.png")
    white = tmp_path / "white.png"
    Image.new("RGB", size, "white").save(white)
    assert np.asarray(Photos().read_depth(Scene(photo, depth))).tolist() == near.tolist()
    assert not np.asarray(Photos().read_depth(Scene(white, far, sky))).any()  # a white sky is as far as there is


def test_scenes_have_classes_where_they_were_segmented(data, tmp_path):
    folder = shutil.copytree(data, tmp_path / "segmented")
    (folder / "segmentation").mkdir()
    Image.new("P", (4, 4)).save(folder / "segmentation" / "03.png")
    scenes = [scene for part in find_scenes(folder) for scene in part]
    assert [scene.photo.stem for scene in scenes if scene.classes] == ["03"]


class Half(EstimatesDensity):
    """Darken by a half, and call half of it haze."""

    def restore_with_density(self, hazy):
        return hazy / 2, torch.full_like(hazy[:, :1], 0.5)


def test_validation_means_over_images_not_batches():
    clear = torch.full((3, 3, 8, 8), 0.4)
    density = torch.tensor([0.5, 0.6, 0.9]).view(3, 1, 1, 1).expand(3, 1, 8, 8)
    whole = {"hazy": clear + 0.2, "clear": clear, "density": density}
    batches = [{key: value[part] for key, value in whole.items()} for part in (slice(0, 2), slice(2, 3))]
    scores = validate(Half(), batches)
    expected = {"hazy": -20 * np.log10(0.2), "restored": 20, "harm": -20 * np.log10(0.2), "density_error": 0.5 / 3}
    assert scores == pytest.approx(expected, abs=1e-3)


def test_psnr_of_a_known_error():
    clear = torch.zeros(2, 3, 8, 8)
    assert psnr(clear + 0.1, clear).tolist() == pytest.approx([20, 20], abs=1e-4)


def test_the_learning_rate_warms_up_and_ends_at_0():
    recipe = small(steps=100, warmup=0.1)
    factors = [learning_rate_factor(step, recipe) for step in range(101)]
    assert factors[0] < 0.11
    assert max(factors) == pytest.approx(1, abs=0.03)
    assert factors[100] == pytest.approx(0, abs=1e-9)
    assert all(a >= b for a, b in pairwise(factors[10:]))


def test_every_recipe_loads_and_an_unknown_one_is_refused():
    for name in RECIPES.names():
        assert RECIPES.get(name).steps > 0
    with pytest.raises(UnknownModelError, match="Did you mean api_plain"):
        RECIPES.get("api_plan")


def test_every_recipe_of_a_file_has_its_name_in_the_registry():
    files = [import_module(f"dehaze.training.recipes.{file.name}") for file in iter_modules(recipes.__path__)]
    assert sorted(name for file in files for name in file.RECIPES) == RECIPES.names()


@pytest.mark.slow
@pytest.mark.parametrize("command", [["dehaze", "train"], ["dehaze.training"]])
def test_the_command_trains_and_exits_by_the_convention(data, tmp_path, command):
    def run(*options) -> subprocess.CompletedProcess:
        arguments = ["--recipe", "api_plain", "--data", data, "--output", tmp_path / "run", "--precision", "fp32"]
        line = [sys.executable, "-m", *command, *arguments, *options]
        return subprocess.run(list(map(str, line)), capture_output=True, text=True)

    done = run("--steps", 1, "--batch", 1, "--crop", 64, "--workers", 0)
    assert done.returncode == 0 and (tmp_path / "run" / "weights" / "model.safetensors").exists(), done.stderr
    unknown, missing = run("--recipe", "api_plan"), run("--data", tmp_path, "--output", tmp_path / "other")
    assert unknown.returncode == 2 and "Did you mean api_plain" in " ".join(unknown.stderr.replace("│", "").split())
    assert missing.returncode == 1 and "holds no photograph" in missing.stderr
    assert run("--crop", "33", "--output", tmp_path / "other").returncode == 2


@pytest.mark.slow
def test_training_learns_and_its_weights_load(data, tmp_path):
    # One kind of haze, dense and white, of which a few steps can learn something.
    haze = RendererConfig(clear_share=0, dense_share=1, airlight=(0.8, 0.8), warm_share=0, airlight_map_share=0)
    recipe = small(steps=40, batch=4, learning_rate=3e-3, renderer=haze)
    weights = train(recipe, data, tmp_path, workers=0, precision="fp32")
    network, found = load_network("api", weights)
    assert found.file == weights / "model.safetensors"
    crops = RenderedCrops(find_scenes(data)[0], HazeRenderer(haze), size=64, seed=1, start=0, stop=16)
    batch = next(iter(DataLoader(crops, 16)))
    before, after = (
        sum(recipe.objective(trained, trained)(batch, 0.0).values()) for trained in (type(network)(), network)
    )
    assert after < 0.9 * before
    lines = (tmp_path / "log.csv").read_text().splitlines()
    assert "restored" in lines[0]
    assert len(lines) == 2


def test_pairs_can_be_trained_on(data, pairs, tmp_path):
    runs = {"rendered": {}, "paired": {"pairs": pairs}}
    rendered, paired = (
        train(small(steps=2, pair_share=1.0), data, tmp_path / name, **given, workers=0, precision="fp32")
        for name, given in runs.items()
    )
    log = (paired.parent / "log.csv").read_text().splitlines()[0].split(",")
    assert "density_error" in log and "pairs_restored" not in log  # four pairs are too few to hold one out
    tensors = [load_file(folder / "model.safetensors")["head.weight"] for folder in (rendered, paired)]
    assert not torch.equal(*tensors)


@pytest.mark.slow
def test_pairs_can_be_a_share_of_the_samples(data, pairs, tmp_path):
    scenes, known = find_scenes(data)[0], find_pairs(pairs)[0]
    which = {"size": 32, "seed": 0, "start": 0, "stop": 200}
    crops = MixedCrops(scenes, HazeRenderer(), known, 0.25, **which)
    paired = [index for index in range(200) if (crops[index]["hazy"] - 128 / 255).abs().max() < 1e-4]
    assert 30 < len(paired) < 70
    assert crops[paired[0]]["density"].isnan().all()
    others = set(range(200)) - set(paired)
    assert not any(crops[index]["density"].isnan().any() for index in others)
    assert torch.equal(crops[paired[0]]["clear"], crops[paired[0]]["clear"])

    weights = train(small(steps=3, pair_share=0.5), data, tmp_path / "run", pairs=pairs, workers=0, precision="fp32")
    assert all(tensor.isfinite().all() for tensor in load_file(weights / "model.safetensors").values())


@pytest.mark.slow
def test_a_run_that_is_killed_three_times_ends_as_if_it_never_was(data, pairs, tmp_path):
    recipe, options = small(steps=8, pair_share=0.5), {"workers": 0, "precision": "fp32", "save_every": 2}
    options |= {"pairs": pairs, "val_pairs": pairs, "keep": 2}
    whole = train(recipe, data, tmp_path / "whole", **options)

    output = tmp_path / "killed"
    code = f"""
from pathlib import *
from tests.dehaze.test_training import small, train
train(small(steps=8, pair_share=0.5), Path({str(data)!r}), Path({str(output)!r}), **{options})
"""
    moments = (
        lambda: (output / "checkpoint.safetensors").exists(),
        lambda: len((output / "log.csv").read_text().splitlines()) == 3,  # its checkpoint may be older
        lambda: (output / "step-6").exists(),
    )
    for is_time in moments:
        process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 120
        while not is_time() and process.poll() is None and time.monotonic() < deadline:
            time.sleep(0.005)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    resumed = train(recipe, data, output, **options)
    for folder in ("weights", "best", "step-6", "step-8"):
        expected, found = (load_file(each.parent / folder / "model.safetensors") for each in (whole, resumed))
        assert all(torch.equal(found[key], value) for key, value in expected.items())
    assert {path.name for path in output.iterdir()} == {path.name for path in whole.parent.iterdir()}
    logs = [list(csv.DictReader((folder.parent / "log.csv").open())) for folder in (whole, resumed)]
    measured = {"seconds", "crops_per_second", "data_wait"}
    kept = [[{key: row[key] for key in row.keys() - measured} for row in log] for log in logs]
    assert [row["step"] for row in kept[0]] == ["2", "4", "6", "8"]
    assert kept[0] == kept[1]


@pytest.mark.slow
def test_two_processes_learn_as_one_with_the_same_batch(data, tmp_path):
    """Each routes its own part of the batch, so that the curves agree within 2 % and not to the last digit."""
    script = tmp_path / "run.py"
    script.write_text(f"""
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from dehaze.training.loop import train
from dehaze.training.recipes import RECIPES
from dehaze.training.recipes.api import APIObjective
plain = partial(APIObjective, generator=False, contrast=False)
recipe = replace(RECIPES.get("api"), objective=plain, steps=12, batch=4, crop=64, warmup=0)
train(recipe, Path({str(data)!r}), Path(sys.argv[1]), workers=0, precision="fp32", save_every=3)
""")
    curves, environment = [], os.environ | {"PYTHONPATH": str(Path(dehaze.__file__).parents[1]), "OMP_NUM_THREADS": "1"}
    for processes in (1, 2):
        output = tmp_path / str(processes)
        launch = ["-m", "torch.distributed.run", "--standalone", "--nproc_per_node", str(processes), script, output]
        subprocess.run([sys.executable, *launch], check=True, capture_output=True, env=environment)
        with (output / "log.csv").open() as file:
            curves.append([float(row["l1"]) for row in csv.DictReader(file)])
    assert len(curves[0]) == len(curves[1]) == 4
    assert curves[1] == pytest.approx(curves[0], rel=0.02)


@pytest.mark.slow
def test_a_run_goes_on_with_its_settings_alone(data, tmp_path):
    options = {"workers": 0, "precision": "fp32"}
    train(small(steps=2), data, tmp_path, **options)
    weights = (tmp_path / "weights" / "model.safetensors").read_bytes()
    with pytest.raises(DehazeError, match=r"steps was 2 and is 4; learning_rate was 0\.0005 and is 0\.1\..*--override"):
        train(small(steps=4, learning_rate=0.1), data, tmp_path, **options)
    with pytest.raises(DehazeError, match=r"data was .* and is .*other"):
        (tmp_path / "other").symlink_to(tmp_path)
        train(small(steps=2), tmp_path / "other" / "other.jpg", tmp_path, **options)
    assert (tmp_path / "weights" / "model.safetensors").read_bytes() == weights
    train(small(steps=4), data, tmp_path, override=True, **options)
    assert (tmp_path / "weights" / "model.safetensors").read_bytes() != weights
    with pytest.raises(DehazeError, match="holds a run of 4 steps, and 3 are asked for"):
        train(small(steps=3), data, tmp_path, override=True, **options)
    log = list(csv.DictReader((tmp_path / "log.csv").open()))
    assert [row["step"] for row in log] == ["2", "4"]
    settings = json.loads((tmp_path / "run.json").read_text())
    assert settings["recipe"]["steps"] == 4 and settings["data"] == str(data)
    assert settings["made_with"]["dehaze"] == dehaze.__version__


def test_a_finished_run_says_so_and_stays_as_it_is(data, tmp_path, capsys):
    for _ in range(2):
        weights = train(small(steps=2), data, tmp_path, workers=0, precision="fp32")
    assert "this run has done its 2 steps" in capsys.readouterr().out
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 2 and weights.is_dir()


def test_too_few_scenes_to_validate_are_told(data, tmp_path, capsys):
    for kind in ("images", "depth"):
        (tmp_path / "few" / kind).mkdir(parents=True)
        for file in sorted((data / kind).iterdir())[:3]:
            (tmp_path / "few" / kind / file.name).write_bytes(file.read_bytes())
    train(small(steps=1), tmp_path / "few", tmp_path, workers=0, precision="fp32")
    assert "3 scenes are too few to hold one out" in capsys.readouterr().out


def test_one_damaged_scene_of_many_costs_itself_alone(data, tmp_path, capsys):
    for kind in ("images", "depth"):
        (tmp_path / "set" / kind).mkdir(parents=True)
        file = sorted((data / kind).iterdir())[0]
        for number in range(120):
            shutil.copy(file, tmp_path / "set" / kind / f"{number:03}{file.suffix}")
    scene = find_scenes(tmp_path / "set")[1][0]  # one of the six for validation
    scene.photo.write_bytes(b"")
    train(small(steps=1), tmp_path / "set", tmp_path / "run", workers=0, precision="fp32")
    assert f"1 of 120 photographs are damaged and left out: {scene.photo}" in capsys.readouterr().out


def test_recipes_that_compare_no_features_refuse_them(data, tmp_path):
    with pytest.raises(ValueError, match="this recipe compares no features"):
        train(replace(RECIPES.get("ahg"), steps=1), data, tmp_path / "run", features=tmp_path / "vgg16.safetensors")
    assert not (tmp_path / "run").exists()


def test_a_checkpoint_that_cannot_be_written_is_explained(tmp_path):
    network = torch.nn.Linear(2, 2)
    state = TrainingState(network, torch.nn.Linear(2, 2), torch.optim.AdamW(network.parameters()))
    with pytest.raises(OutputError, match="The previous checkpoint stays"):
        state.save(tmp_path / "gone" / "checkpoint.safetensors")


def test_crops_that_do_not_fit_the_network_are_refused(data, tmp_path):
    with pytest.raises(ValueError, match="crops of 80 px do not fit this network; choose a multiple of 64"):
        train(small(crop=80), data, tmp_path)


def test_a_damaged_checkpoint_is_refused(data, tmp_path):
    (tmp_path / "checkpoint.safetensors").write_bytes(b"\x00" * 100)
    with pytest.raises(WeightsError, match="Remove the file to start anew"):
        train(small(), data, tmp_path, workers=0, precision="fp32")
