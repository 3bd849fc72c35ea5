import subprocess
import sys
from hashlib import sha256
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from bench import cli, record, runner
from bench.metrics import MetricError
from dehaze.hub import save_weights
from dehaze.networks.draco import DRACO

ROOT = Path(cli.__file__).parents[1]


@pytest.fixture
def bench(tmp_path):
    """Run the command line and return the result."""

    def call(*arguments):
        return CliRunner().invoke(cli.app, [str(argument) for argument in arguments])

    return call


@pytest.fixture
def pairs(put, tmp_path):
    put(tmp_path / "set", *(f"{kind}/{number}.png" for kind in ("hazy", "clear") for number in range(3)))
    return f"folder:{tmp_path / 'set'}"


def test_run_writes_a_record_a_model_and_data_set(bench, pairs, put, tmp_path):
    put(tmp_path / "real", "a.png", "b.png", size=(64, 64))
    out = tmp_path / "deep" / "out"
    what = ["--model", "identity", "--model", "dcp", "--dataset", pairs, "--dataset", f"folder:{tmp_path / 'real'}"]
    scores = ["--metric", "psnr", "--metric", "fade_refit", "--metric", "ssim"]
    put(
        tmp_path / "set",
        *(f"{kind}/{number}.png" for kind in ("hazy", "clear") for number in range(3)),
        size=(64, 64),
    )
    result = bench("run", *what, *scores, "--output", out, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in out.iterdir()) == [
        f"{model}__folder-{name}__native-v1.{suffix}"
        for model in ("dcp", "identity")
        for name in ("real", "set")
        for suffix in ("json", "parquet")
    ]
    made = record.read(out / "dcp__folder-set__native-v1.json")
    assert list(made.metrics) == ["psnr", "fade_refit", "ssim"]
    assert made.method.name == "dcp"
    assert list(record.read(out / "dcp__folder-real__native-v1.json").metrics) == ["fade_refit"]
    assert "has no clear images: psnr, ssim left out" in result.stderr
    assert "4 records in" in result.stdout
    header, *lines = result.stdout.splitlines()
    assert header.split() == ["method", "data", "set", "images", "psnr", "fade_refit", "ssim", "seconds", "failed"]
    assert [line.split()[:3] for line in lines[:4]] == [
        [model, *rest] for model in ("identity", "dcp") for rest in (("folder:set", "3"), ("folder:real", "2"))
    ]

    again = bench("run", *what, *scores, "--output", out, "--device", "cpu")
    assert again.exit_code == 0
    assert again.stderr.count("already scored") == 4


def test_name_limit_and_protocol_go_into_the_record(bench, pairs, tmp_path):
    options = ["--name", "mine", "--limit", 2, "--protocol", "long800-v1"]
    result = bench("run", "--model", "identity", "--dataset", pairs, "--metric", "psnr", *options, "--output", tmp_path)
    assert result.exit_code == 0, result.output
    made = record.read(tmp_path / "identity__mine-first2__long800-v1.json")
    assert made.protocol == "long800-v1"
    assert made.dataset.samples == 2


def test_weights_of_ones_own_are_scored_under_a_name_of_ones_own(bench, pairs, tmp_path):
    torch.manual_seed(0)
    save_weights(DRACO(), tmp_path / "weights")
    digest = sha256((tmp_path / "weights" / "model.safetensors").read_bytes()).hexdigest()
    given = ["--model", "draco", "--weights", tmp_path / "weights", "--method", "mine", "--dataset", pairs]
    result = bench("run", *given, "--metric", "psnr", "--output", tmp_path / "out", "--device", "cpu")
    assert result.exit_code == 0, result.output
    (path,) = (tmp_path / "out").glob("*.json")
    assert path.name == "mine__folder-set__native-v1.json"
    made = record.read(path).method
    assert (made.name, made.weights_sha256) == ("mine", digest)


def test_failures_are_listed_and_the_exit_code_is_1(bench, pairs, tmp_path):
    (tmp_path / "set/hazy/1.png").write_bytes(b"[red]not an image")
    result = bench("run", "--model", "identity", "--dataset", pairs, "--metric", "psnr", "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "failed: identity on folder:set, 1: read: " in result.stderr
    assert record.read(tmp_path / "out/identity__folder-set__native-v1.json").metrics["psnr"].count == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--model", "identty"], 2, "Did you mean identity"),
        (["--metric", "ssmi"], 2, "ssmi"),
        (["--protocol", "native"], 2, "Did you mean native-v1"),
        (["--dataset", "smple"], 2, "No data set is called 'smple'"),
        (["--dataset", "folder:/nowhere"], 1, "/nowhere is no folder"),
        (["--dataset", "sample", "--name", "x", "--dataset", "folder:."], 2, "--name names one data set"),
        (["--fade-stats", "."], 2, "Add --metric fade"),
        (["--metric", "fade", "--fade-stats", "/nowhere"], 2, "/nowhere does not exist; --fade-stats names it"),
        (["--device", "cuda:99"], 2, "cuda:99"),
        (["--model", "draco", "--weights", "/nowhere"], 1, "There are no weights at /nowhere"),
        (
            ["--model", "dcp", "--model", "draco", "--weights", "own.safetensors"],
            2,
            "--weights and --method are of",
        ),
        (["--method", "a\x1b[2J"], 2, "name: Name should have no characters that cannot be seen"),
    ],
)
def test_mistakes_are_one_line(bench, pairs, tmp_path, arguments, code, message):
    defaults = {"--model": "identity", "--dataset": pairs, "--metric": "psnr"}
    given = [part for name, value in defaults.items() if name not in arguments for part in (name, value)]
    result = bench("run", *given, *arguments, "--output", tmp_path / "out")
    assert result.exit_code == code, result.output
    assert message in result.stderr
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_two_sets_of_one_name_are_refused(bench, pairs, put, tmp_path):
    put(tmp_path / "other" / "set", "a.png")
    other = f"folder:{tmp_path / 'other' / 'set'}"
    result = bench("run", "--model", "identity", "--dataset", pairs, "--dataset", other, "--output", tmp_path / "out")
    assert result.exit_code == 2
    assert "Two data sets have the same name" in result.stderr


def test_a_metric_that_cannot_be_had_is_left_out(bench, pairs, tmp_path, monkeypatch):
    get = cli.metrics.get

    def without_ssim(name, **options):
        if name == "ssim":
            raise MetricError("ssim has no weights here")
        return get(name, **options)

    monkeypatch.setattr(cli.metrics, "get", without_ssim)
    what = ["run", "--model", "identity", "--dataset", pairs, "--metric", "ssim", "--output", tmp_path / "out"]
    result = bench(*what, "--metric", "psnr")
    assert result.exit_code == 1
    assert "metric left out: ssim has no weights here" in result.stderr
    assert list(record.read(tmp_path / "out/identity__folder-set__native-v1.json").metrics) == ["psnr"]
    assert bench(*what).exit_code == 1


def test_control_c_says_how_to_continue(bench, pairs, tmp_path, monkeypatch):
    score, calls = runner._score, []

    def interrupted(*arguments):
        calls.append(1)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return score(*arguments)

    monkeypatch.setattr(runner, "_score", interrupted)
    what = ["run", "--model", "identity", "--dataset", pairs, "--metric", "psnr", "--output", tmp_path / "out"]
    result = bench(*what)
    assert result.exit_code == 130
    assert "the same command continues" in result.stderr
    assert bench(*what).exit_code == 0
    assert len(calls) == 2 + 2


def test_score_takes_predictions(bench, pairs, put, tmp_path):
    put(tmp_path / "theirs", *(f"{number}.png" for number in range(3)))
    about = [
        "--method",
        "their net",
        "--paper",
        "arXiv:1",
        "--license",
        "MIT",
        "--trained-on",
        "a",
        "--trained-on",
        "b",
    ]
    what = ["--dataset", pairs, "--metric", "psnr", "--output", tmp_path / "out"]
    result = bench("score", tmp_path / "theirs", *about, *what)
    assert result.exit_code == 0, result.output
    method = record.read(tmp_path / "out/their-net__folder-set__native-v1.json").method
    assert (method.name, method.source, method.license, method.paper) == ("their net", "predictions", "MIT", "arXiv:1")
    assert method.trained_on == ("a", "b")

    (tmp_path / "theirs/2.png").unlink()
    result = bench("score", tmp_path / "theirs", *about, *what)
    assert result.exit_code == 1
    assert "no restored image for 2 of folder:set" in result.stderr


def test_statistics_decide_whether_a_run_is_kept(bench, pairs, tmp_path, monkeypatch):
    get = cli.metrics.get
    monkeypatch.setattr(cli.metrics, "get", lambda name, **options: get("psnr"))
    stats = tmp_path / "stats"
    stats.mkdir()
    (stats / "a.mat").write_bytes(b"1")
    what = ["run", "--model", "identity", "--dataset", pairs, "--metric", "fade", "--fade-stats", stats]

    def hash_of_record():
        result = bench(*what, "--output", tmp_path / "out")
        assert result.exit_code == 0, result.output
        [path] = (tmp_path / "out").glob("*.json")
        return record.read(path).environment["fade_stats"], "already scored" in result.stderr

    first, _ = hash_of_record()
    assert hash_of_record() == (first, True)
    (stats / "a.mat").write_bytes(b"2")
    second, kept = hash_of_record()
    assert second != first
    assert not kept


@pytest.mark.slow
def test_list():
    listed = subprocess.run([sys.executable, "-m", "bench", "list"], cwd=ROOT, capture_output=True, text=True)
    assert listed.returncode == 0, listed.stderr
    for word in ("identity", "folder:PATH", "ciede2000", "long800-v1"):
        assert word in listed.stdout
