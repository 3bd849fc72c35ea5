"""A run that is killed at any moment, in one process or several, ends as one that was not."""

import multiprocessing
import os
import signal
import socket
import time
from dataclasses import replace

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

import dehaze
from bench import datasets, environment, metrics, protocol, record, runner
from bench.methods.shipped import Model
from dehaze.processes import join

pytestmark = pytest.mark.slow

IMAGES = 40
STEM = "identity__folder-set__native-v1"

# Processes are forked from one that has imported all this already: starting one takes milliseconds.
FORKS = multiprocessing.get_context("forkserver")
FORKS.set_forkserver_preload(["accelerate", "bench.runner", "pytest"])


class Held(Model):
    """The identity, taking its time, and on the last image as long as the file `hold` is there."""

    def __init__(self, hold):
        super().__init__(dehaze.load("identity", device="cpu", look="faithful"))
        self.hold = hold

    def restore_image(self, sample, hazy):
        time.sleep(0.01)
        while sample.id == str(IMAGES - 1) and self.hold.exists():
            time.sleep(0.01)
        return super().restore_image(sample, hazy)


def work(root, begun=None, threads=None, variables=None, last=None):
    """Score the set in `root` in this process; `last` is a function of the runner that it does not survive."""
    os.environ |= variables or {}
    torch.set_num_threads(threads or torch.get_num_threads())
    environment.code = lambda: "unchanged"  # whoever edits the sources meanwhile
    if last:
        call = getattr(runner, last)
        setattr(runner, last, lambda *arguments: (call(*arguments), os.kill(os.getpid(), signal.SIGKILL)))
    dataset = datasets.load(f"folder:{root / 'set'}")
    processes = join()
    if begun:
        begun.set()
    scores = {"psnr": metrics.get("psnr")}
    return runner.run(
        Held(root / "hold"), dataset, protocol.get("native-v1"), scores, root / "out", processes=processes
    )


@pytest.fixture
def start(monkeypatch, tmp_path):
    """Start so many processes on the set, wait until they have begun, and return them."""

    def call(count=1, **options):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        started = []
        for index in range(count):
            variables = {"RANK": index, "LOCAL_RANK": index, "WORLD_SIZE": count, "MASTER_PORT": port}
            variables = {name: str(value) for name, value in variables.items()} | {"MASTER_ADDR": "127.0.0.1"}
            begun = FORKS.Event()
            given = {"begun": begun, "threads": torch.get_num_threads(), **options}
            given |= {"variables": variables | {"OMP_NUM_THREADS": "1"}} if count > 1 else {}
            started.append((FORKS.Process(target=work, args=(tmp_path,), kwargs=given, daemon=True), begun))
            started[-1][0].start()
        for _, begun in started:
            assert begun.wait(120)
        return [process for process, _ in started]

    return call


@pytest.fixture
def unbroken(put, tmp_path, monkeypatch):
    """Make the set, score it in one go, and return the record and the table."""
    names = [f"{kind}/{number:02d}.png" for kind in ("hazy", "clear") for number in range(IMAGES)]
    put(tmp_path / "set", *names, size=(24, 24))
    (tmp_path / "set/hazy/07.png").write_bytes(b"not an image")
    monkeypatch.setattr(environment, "code", lambda: "unchanged")
    made = work(tmp_path)
    table = pq.read_table(tmp_path / "out" / f"{STEM}.parquet")
    for path in (tmp_path / "out").iterdir():
        path.unlink()
    return made, table


def check_same(folder, unbroken):
    """Compare what lies in `folder` with the record and the table of the unbroken run, times aside."""
    made, table = unbroken
    assert sorted(path.name for path in folder.iterdir()) == [f"{STEM}.json", f"{STEM}.parquet"]
    found = record.read(folder / f"{STEM}.json")
    assert replace(found, speed=None, created=made.created) == replace(made, speed=None)
    rows = pq.read_table(folder / f"{STEM}.parquet")
    assert rows.drop_columns("seconds").to_pylist() == table.drop_columns("seconds").to_pylist()


def kill(processes):
    """Kill the first, and the others after it, as a launcher does; they may have ended when it was gone."""
    for process in processes:
        process.kill()
    for process in processes:
        process.join()
    assert processes[0].exitcode == -signal.SIGKILL


def finish(processes):
    for process in processes:
        process.join(120)
        assert process.exitcode == 0


def test_ten_kills_change_nothing(start, unbroken, tmp_path):
    (tmp_path / "hold").touch()
    for delay in np.random.default_rng(0).uniform(0, 0.08, 10):
        processes = start()
        time.sleep(delay)
        kill(processes)
    (tmp_path / "hold").unlink()
    finish(start())
    check_same(tmp_path / "out", unbroken)


@pytest.mark.parametrize("last", ["_record", "write_rows"])
def test_a_kill_between_the_last_image_and_the_end(start, unbroken, tmp_path, last):
    [process] = start(last=last)
    process.join(120)
    assert process.exitcode == -signal.SIGKILL
    (tmp_path / "out" / ".dehaze-0aZ9xyz.tmp").write_text("{")  # as a kill inside the writing leaves it
    assert (tmp_path / "out" / f"{STEM}.journal").exists()
    finish(start())
    check_same(tmp_path / "out", unbroken)


def test_several_processes_give_the_record_of_one(start, unbroken, tmp_path):
    finish(start(3))
    check_same(tmp_path / "out", unbroken)


def test_any_number_of_processes_continues_what_any_number_began(start, unbroken, tmp_path):
    (tmp_path / "hold").touch()
    random = np.random.default_rng(1)
    for count in (2, 1, 3, 2):
        processes = start(count)
        time.sleep(random.uniform(0, 0.15))
        kill(random.permutation(processes))
    done = sum(path.read_bytes().count(b"\n") for path in (tmp_path / "out").iterdir())
    (tmp_path / "hold").unlink()
    assert done > 0
    finish(start(1))
    check_same(tmp_path / "out", unbroken)


def test_two_processes_after_one(start, unbroken, tmp_path):
    (tmp_path / "hold").touch()
    processes = start()
    time.sleep(0.1)
    kill(processes)
    (tmp_path / "hold").unlink()
    finish(start(2))
    check_same(tmp_path / "out", unbroken)
