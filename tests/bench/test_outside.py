"""The harness runs models from outside the project, and scores them as it scores its own."""

import json

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import bench
import dehaze
from bench import cli, record, speed
from bench.errors import UnknownDatasetError
from bench.methods.shipped import identity
from tests import toy

FORMS = ("build", "Net", "torchscript", "onnx")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """The toy in every form, by its name on a command line."""
    folder = tmp_path_factory.mktemp("saved")
    path = toy.write(folder)
    forms = {form: f"{path}:{form}" for form in ("build", "Net", "restore")}
    forms["torchscript"] = f"torchscript:{toy.save_torchscript(folder / 'my.pt')}"
    forms["onnx"] = f"onnx:{toy.save_onnx(folder / 'my.onnx')}"
    return forms


@pytest.fixture
def run(pairs, tmp_path):
    """Run a command on the set of pairs, and return its result and its one record."""

    def ran(name, *options, output="out", code=0):
        folder = tmp_path / output
        set_ = f"folder:{tmp_path / 'set'}"
        shared = ["--dataset", set_, "--metric", "psnr", "--device", "cpu", "--output", str(folder)]
        made = CliRunner().invoke(cli.app, ["run", "--model", name, *shared, *options])
        assert made.exit_code == code, made.output
        paths = list(folder.glob("*.json"))
        return made, record.read(paths[0]) if len(paths) == 1 else None

    return ran


def test_every_form_has_the_same_score(saved, run, pairs):
    records = {form: run(saved[form], output=form)[1] for form in (*FORMS, "restore")}
    for form, made in records.items():
        assert made.metrics["psnr"].mean == pytest.approx(records["build"].metrics["psnr"].mean, abs=0.001), form
        assert made.method.source == "outside"
    assert records["build"].method.parameters == 84 and records["onnx"].method.parameters is None
    assert [records[form].method.name for form in FORMS] == ["net.py:build", "net.py:Net", "my.pt", "my.onnx"]
    assert bench.evaluate(toy.module(), pairs, metrics=("psnr",)).metrics == records["build"].metrics


def test_a_record_says_what_the_user_said(saved, run):
    facts = ["--method", "mine", "--paper", "arXiv:1", "--license", "MIT", "--trained-on", "a", "--trained-on", "b"]
    _, made = run(saved["onnx"], *facts, "--parameters", "84")
    method = made.method
    assert (method.name, method.paper, method.license) == ("mine", "arXiv:1", "MIT")
    assert (method.trained_on, method.parameters) == (("a", "b"), 84)


def test_no_earlier_result_of_other_code_weights_or_options(run, tmp_path):
    name = f"{toy.write(tmp_path)}:build"
    first, made = run(name)
    again, same = run(name)
    assert "already scored" in again.stderr and same == made and "already scored" not in first.stderr
    seen = [made.key]
    for options, code in (
        ((), toy.CODE.replace("0.05", "0.06")),
        ((), toy.CODE + "\n# a comment\n"),
        (("--multiple-of", "8"), toy.CODE),
        (("--channels", "bgr"), toy.CODE),
        (("--tile", "64"), toy.CODE),
    ):
        toy.write(tmp_path, code)
        output, made = run(name, *options)
        assert "already scored" not in output.stderr
        assert made.key not in seen
        seen.append(made.key)


def test_an_image_that_fails_is_a_row_of_one_sentence(run, tmp_path):
    path = toy.write(tmp_path, "def f(pixels):\n    return pixels[1:]\n")
    failed, made = run(f"{path}:f", code=1)
    assert len(made.failures) == 4
    assert "returns an array uint8 [15, 24, 3]. It must return" in made.failures[0].reason
    assert "restore: The function returns" in failed.stderr
    assert str(tmp_path) not in (tmp_path / "out" / f"{made.stem}.json").read_text()


@pytest.mark.parametrize(
    ("options", "code", "says"),
    [
        (("net.py:buid",), 2, "Did you mean build?"),
        (("none.py:build",), 2, "none.py does not exist."),
        (("net.py:build", "--range", "2"), 2, "there is no range '2'"),
        (("net.py:build", "--model", "dcp", "--multiple-of", "8"), 2, "Give one --model."),
        (("dcp", "--channels", "bgr"), 2, "dcp is a model of the project"),
        (("broken.py:f",), 1, "NameError: name 'missing' is not defined (line 2 of broken.py)"),
    ],
)
def test_mistakes_are_one_line(options, code, says, run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    toy.write(tmp_path)
    (tmp_path / "broken.py").write_text("f = 1\nmissing\n")
    failed, _ = run(*options, code=code)
    assert says in failed.stderr and failed.stderr.count("\n") == 1


def test_speed_measures_every_form(saved):
    for form in (*FORMS, "restore"):
        cost = speed.measure(speed.Job(saved[form], 0.01, device="cpu", runs=3, seconds=0))
        assert cost.failure is None and cost.runs == 3
        counted = form not in ("onnx", "restore")
        assert cost.multiply_adds == (cost.width * cost.height * 81 if counted else None)
        assert cost.parameters == (84 if counted else None)
        speed.table([cost])


@pytest.mark.slow
def test_speed_takes_the_same_options_in_its_own_process(saved, tmp_path):
    output = tmp_path / "speed.json"
    options = ["--megapixels", "0.01", "--device", "cpu", "--seconds", "0", "--multiple-of", "64", "--channels", "bgr"]
    made = CliRunner().invoke(cli.app, ["speed", "--model", saved["build"], *options, "--output", str(output)])
    assert made.exit_code == 0, made.output
    (row,) = json.loads(output.read_text())["rows"]
    width, height = (-(-row[side] // 64) * 64 for side in ("width", "height"))
    assert row["multiply_adds"] == width * height * 81  # of the padded image


# From Python


def test_a_module_is_as_it_was_afterwards(pairs):
    network = nn.Sequential(toy.module(), nn.BatchNorm2d(3).eval(), nn.Dropout()).train()
    network[1].eval()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    made = bench.evaluate(network, pairs, method="mine")
    assert made.method.name == "mine" and set(made.metrics) == {"psnr", "ssim"}
    assert [part.training for part in network] == [True, False, True]
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


def test_a_function_and_a_dehazer(pairs, tmp_path):
    made = bench.evaluate(lambda pixels: np.full_like(pixels, 9), pairs, output=tmp_path / "out", method="nine")
    assert record.read(tmp_path / "out" / f"{made.stem}.json") == made
    dehazer = dehaze.load("dcp", device="cpu")
    own = bench.evaluate(dehazer, pairs, metrics=["psnr"])
    assert own.method.source == "model" and record.same_output(own, identity(dehazer))


def test_a_function_that_changed_is_scored_anew(pairs, tmp_path):
    value = 10

    def restore(pixels):
        return np.full_like(pixels, value)

    one = bench.evaluate(restore, pairs, output=tmp_path / "out")
    value = 200
    assert bench.evaluate(restore, pairs, output=tmp_path / "out").metrics != one.metrics


def test_a_data_set_by_name(put, tmp_path):
    put(tmp_path / "other", "hazy/a.png", "clear/a.png")
    assert bench.evaluate(nn.Identity(), f"folder:{tmp_path / 'other'}").dataset.name == "folder:other"
    with pytest.raises(UnknownDatasetError):
        bench.evaluate(nn.Identity(), "nowhere")
