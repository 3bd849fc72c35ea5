import csv
import json
import os
import sys
from dataclasses import replace

import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import dehaze
from bench import cli, speed
from bench.errors import UsageError
from dehaze.networks.identity import Identity

TINY = speed.Job("identity", 0.002, device="cpu", dtype="float32", threads=torch.get_num_threads(), runs=4)


class Network(Identity):
    """A 1×1 convolution of 12 parameters that needs room for a known number of copies of the image."""

    copies = 10

    def __init__(self):
        super().__init__()
        self.convolution = nn.Conv2d(3, 3, 1)

    def forward(self, hazy):
        return self.convolution(hazy) + hazy.repeat(self.copies, 1, 1, 1).sum(0)


@pytest.fixture
def network(monkeypatch):
    loaded = dehaze.load("identity", device="cpu", look="faithful")
    monkeypatch.setattr(speed.outside, "load", lambda name, *how, **more: replace(loaded, name=name, network=Network()))


def test_a_row_says_what_was_measured(network):
    cost = speed.measure(replace(TINY, model="convolution"))
    assert (cost.model, cost.megapixels, cost.device, cost.dtype) == ("convolution", 0.002, "cpu", "float32")
    assert cost.width * cost.height == pytest.approx(2000, rel=0.02)
    assert cost.width / cost.height == pytest.approx(1.5, rel=0.03)  # that of the photograph
    assert cost.parameters == 12
    assert cost.multiply_adds == cost.width * cost.height * 9
    assert cost.runs == 4
    assert 0 < cost.seconds_p10 <= cost.seconds_p50 <= cost.seconds_p90
    assert cost.threads == torch.get_num_threads()
    assert cost.failure is None


def test_runs_end_with_the_time_given_but_not_before_three(network):
    assert speed.measure(replace(TINY, runs=50, seconds=0)).runs == 3


@pytest.mark.skipif(sys.platform != "linux", reason="the peak of a process is read where Linux tells it")
def test_memory_is_what_the_photograph_took(network):
    image = 2e6 * 3 * 4
    cost = speed.measure(replace(TINY, megapixels=2, runs=3))
    assert (Network.copies + 1) * image < cost.peak_bytes < (Network.copies + 9) * image


@pytest.mark.slow
def test_a_failure_is_a_row_that_says_why():
    cost = speed.measure_apart(replace(TINY, device="cuda:99"))
    assert "the device 'cuda:99' cannot be used here" in cost.failure
    assert (cost.model, cost.megapixels, cost.seconds_p50) == ("identity", 0.002, None)


@pytest.mark.slow
def test_so_is_the_end_of_the_process():
    class Deadly(speed.Job):
        def __reduce__(self):
            return os.abort, ()  # what the other process calls to take the job over

    cost = speed.measure_apart(Deadly(**vars(TINY)))
    assert cost.failure == "the process was killed, as systems do where memory runs out"


def test_the_command_writes_what_it_shows(tmp_path, monkeypatch):
    def measured(job):
        if job.model == "dcp" and job.megapixels > 1:
            return speed.Cost(job.model, job.megapixels, failure="OutOfMemoryError: [no] room")
        figures = {"multiply_adds": 3_000_000_000, "peak_bytes": 12_000_000, "parameters": 1234, "runs": 5}
        seconds = {"seconds_p10": 0.1, "seconds_p50": 0.25, "seconds_p90": 0.5}
        about = {"width": 30, "height": 20, "device": "cpu", "dtype": "float32", "threads": 2}
        return speed.Cost(job.model, job.megapixels, **about, **figures, **seconds)

    monkeypatch.setattr(speed, "measure_apart", measured)
    what = ["speed", "--model", "identity", "--model", "dcp", "--megapixels", "2", "--megapixels", "0.5"]
    for suffix in ("json", "csv"):
        result = CliRunner().invoke(cli.app, [*what, "--output", str(tmp_path / f"cost.{suffix}")])
        assert result.exit_code == 1
        header, *lines = result.stdout.splitlines()
        assert header.split()[:2] == ["model", "megapixels"]
        assert [line.split() for line in lines if line.strip()] == [
            [model, size, "cpu,", "float32,", "2", "threads", "1,234", "3", "12", "5", "0.1", "0.25", "0.5"]
            for model, size in (("identity", "0.5"), ("identity", "2"), ("dcp", "0.5"))
        ]
        assert "failed: dcp, 2 megapixels: OutOfMemoryError: [no] room" in result.stderr
    written = json.loads((tmp_path / "cost.json").read_text())
    assert written["environment"]["torch"] == torch.__version__.partition("+")[0]
    with (tmp_path / "cost.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["model"], float(row["megapixels"])) for row in rows] == [
        (row["model"], row["megapixels"]) for row in written["rows"]
    ]
    assert rows[0]["seconds_p50"] == "0.25"
    assert rows[3]["failure"] == "OutOfMemoryError: [no] room"


def test_mistakes_are_told_before_anything_is_measured(tmp_path, monkeypatch):
    monkeypatch.setattr(speed, "measure_apart", lambda job: pytest.fail("measured"))
    for arguments, code, message in (
        (["--model", "identty"], 2, "Did you mean identity"),
        (["--model", "identity", "--output", str(tmp_path / "cost.txt")], 2, "End it in .json or .csv"),
    ):
        result = CliRunner().invoke(cli.app, ["speed", *arguments])
        assert result.exit_code == code
        assert message in result.stderr
    with pytest.raises(UsageError, match=r"\.json or \.csv"):
        speed.write(tmp_path / "cost", [])
