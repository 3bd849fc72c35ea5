import os
import resource
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dehaze import list_models
from dehaze.cli import app
from dehaze.dehazer import Dehazer

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    runner = CliRunner()
    return lambda *arguments: runner.invoke(app, [str(argument) for argument in arguments])


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    (folder / "deep").mkdir(parents=True)
    generator = np.random.default_rng(0)
    for name in ("a.jpg", "b.png", "deep/a.jpg"):
        Image.fromarray(generator.integers(0, 256, (20, 30, 3), dtype=np.uint8)).save(folder / name)
    return folder


def test_one_photograph_to_one_file(run, photos, tmp_path):
    result = run("run", photos / "b.png", "--model", "identity", "--output", tmp_path / "out.png")
    assert result.exit_code == 0, result.output
    assert np.array_equal(np.array(Image.open(tmp_path / "out.png")), np.array(Image.open(photos / "b.png")))


def test_without_output_the_result_lies_beside_the_photograph(run, photos):
    assert run("run", photos / "b.png", "--model", "dcp").exit_code == 0
    assert (photos / "b_dehazed.png").exists()


def test_a_folder_keeps_its_subfolders(run, photos, tmp_path):
    result = run("run", photos, "--model", "dcp", "--output", tmp_path / "out")
    assert result.exit_code == 0, result.output
    names = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert names == ["a.jpg", "b.png", "deep/a.jpg"]


def test_a_glob(run, photos, tmp_path):
    assert run("run", f"{photos}/*.png", "--model", "identity", "--output", tmp_path / "out").exit_code == 0
    assert [path.name for path in (tmp_path / "out").iterdir()] == ["b.png"]


def test_a_failed_file_is_reported_and_the_others_are_written(run, photos, tmp_path):
    (photos / "broken.jpg").write_bytes(b"not a photograph")
    result = run("run", photos, "--model", "identity", "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert "broken.jpg" in result.stderr
    assert "1 of 4 failed" in result.stderr
    assert len(list((tmp_path / "out").rglob("*.*"))) == 3


@pytest.mark.parametrize("output", [["--output", "out"], []], ids=["folder", "beside"])
def test_photographs_of_one_name_have_a_result_each(run, tmp_path, output):
    folder = tmp_path / "in"
    folder.mkdir()
    levels = {"a.bmp": 1, "a.gif": 2, "a.png": 3, "A.PNG": 4}
    for name, level in levels.items():
        Image.new("L", (8, 8), level).save(folder / name)
    result = run("run", folder, "--model", "identity", *output)
    assert result.exit_code == 0, result.output
    written = [Path(line.split()[0]) for line in result.stdout.splitlines()]
    assert sorted(np.array(Image.open(path)).max() for path in written) == [1, 2, 3, 4]
    assert all(Image.open(folder / name).convert("L").getpixel((0, 0)) == level for name, level in levels.items())


def test_a_second_run_passes_over_the_results_of_the_first(run, photos):
    assert run("run", photos, "--model", "identity").exit_code == 0
    before = sorted(photos.rglob("*"))
    second = run("run", photos, "--model", "identity")
    assert second.exit_code == 0, second.output
    assert "skipped 3 results of earlier runs" in second.stderr
    assert sorted(photos.rglob("*")) == before
    assert "skipped" not in run("run", photos / "a_dehazed.jpg", "--model", "identity").stderr
    assert (photos / "a_dehazed_dehazed.jpg").exists()


def test_what_is_no_file_is_named_and_the_others_are_written(run, photos, tmp_path):
    os.mkfifo(photos / "pipe.png")
    assert run("run", photos, "--model", "identity", "--output", tmp_path / "out").exit_code == 0
    result = run("run", photos / "pipe.png", photos / "b.png", "--model", "identity", "--output", tmp_path / "new")
    assert result.exit_code == 1
    assert "pipe.png is a named pipe" in result.stderr
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["b.png"]


def test_names_cannot_command_the_terminal(run, photos, tmp_path):
    (photos / "a.jpg").rename(photos / "a\x1b[31m\n\u202e.jpg")
    (photos / "b\x1b]0;title\x07.png").write_bytes(b"no photograph")
    result = run("run", photos, "--model", "identity", "--output", tmp_path / "out")
    assert r"a\x1b[31m\n\u202e.jpg" in result.stdout and r"b\x1b]0;title\x07.png" in result.stderr
    assert not any(letter in result.output for letter in "\x1b\x07\u202e")


@pytest.mark.slow
def test_names_that_cannot_be_printed_do_not_break_off(photos, tmp_path):
    os.rename(photos / "a.jpg", os.path.join(os.fsencode(photos), b"caf\xe9.jpg"))
    os.rename(photos / "b.png", photos / "日本.png")
    (photos / "deep" / "a.jpg").write_bytes(b"")
    os.rename(photos / "deep" / "a.jpg", os.path.join(os.fsencode(photos), b"deep/\xe9.jpg"))
    command = [sys.executable, "-m", "dehaze", "run", photos, "--model", "identity", "--output", tmp_path / "out"]
    encoding = {"PYTHONIOENCODING": "cp1252:strict", "PYTHONPATH": str(ROOT)}
    result = subprocess.run(command, env=os.environ | encoding, capture_output=True)
    assert result.returncode == 1
    assert b"Traceback" not in result.stderr
    assert b"1 of 3 failed" in result.stderr and rb"\udce9.jpg is empty" in result.stderr
    assert rb"caf\udce9.jpg" in result.stdout and rb"\u65e5\u672c.png" in result.stdout
    assert sorted(os.listdir(os.fsencode(tmp_path / "out"))) == [b"caf\xe9.jpg", b"deep", "日本.png".encode()]


@pytest.mark.slow
def test_what_a_killed_run_left_is_gone_after_the_next(run, photos, tmp_path):
    """The first is killed when its result is written and has not got its name yet."""
    script = f"""if True:
        import os, signal, sys
        os.replace = lambda *_: os.kill(os.getpid(), signal.{signal.SIGKILL.name})
        from dehaze.__main__ import main
        sys.argv[1:] = ["run", "b.png", "--model", "identity", "--output", "out"]
        main()
    """
    killed = subprocess.run([sys.executable, "-c", script], cwd=photos, env=os.environ | {"PYTHONPATH": str(ROOT)})
    assert killed.returncode == -signal.SIGKILL
    (left,) = (photos / "out").iterdir()
    assert left.name.startswith(".") and left.stat().st_size > 1000

    assert run("run", photos / "b.png", "--model", "identity", "--output", photos / "out").exit_code == 0
    assert [path.name for path in (photos / "out").iterdir()] == ["b.png"]


def test_a_full_disk_fails_what_does_not_fit(run, photos, tmp_path):
    Image.effect_noise((300, 300), 90).save(photos / "aa.png")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))  # the kernel stops the write half-way
    try:
        result = run("run", photos, "--model", "identity", "--output", tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert result.exit_code == 1
    (failure,) = (line for line in result.stderr.splitlines() if line.startswith("failed:"))
    assert "aa.png" in failure and "free space" in failure
    names = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*"))
    assert names == ["a.jpg", "b.png", "deep/a.jpg"]


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (MemoryError(), "needs more memory than there is. Give a smaller --tile"),
        (
            RuntimeError("DefaultCPUAllocator: can't allocate memory\nframes"),
            "cannot be restored: can't allocate memory. A smaller --tile",
        ),
    ],
)
def test_lack_of_memory_fails_one_photograph(run, photos, tmp_path, monkeypatch, error, words):
    restore, done = Dehazer.__call__, []

    def fail_after_one(self, photo, strength):
        if done:
            raise error
        done.append(photo)
        return restore(self, photo, strength)

    monkeypatch.setattr(Dehazer, "__call__", fail_after_one)
    result = run("run", photos, "--model", "identity", "--output", tmp_path / "out")
    assert result.exit_code == 1
    assert f"b.png {words}" in result.stderr.replace("DefaultCPUAllocator: ", "")
    assert "2 of 3 failed" in result.stderr


def test_fast_is_handed_on(run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("dehaze.dehazer.FAST_PIXELS", 100)
    pixels = []
    for options in ([], ["--fast"]):
        assert run("run", photos / "b.png", "--model", "dcp", *options, "--output", tmp_path / "out.png").exit_code == 0
        pixels.append(np.array(Image.open(tmp_path / "out.png")))
    assert pixels[0].shape == pixels[1].shape
    assert not np.array_equal(*pixels)


@pytest.mark.parametrize("output", ["2024.08.12/", "trip.v2"])
def test_a_folder_may_have_a_dot(run, photos, tmp_path, output):
    result = run("run", photos / "b.png", photos / "a.jpg", "--model", "identity", "--output", output)
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in (tmp_path / output).iterdir()) == ["a.jpg", "b.png"]


def test_strength_0_keeps_the_photograph(run, photos, tmp_path):
    run("run", photos / "b.png", "--model", "dcp", "--strength", "0", "--output", tmp_path / "out.png")
    assert np.array_equal(np.array(Image.open(tmp_path / "out.png")), np.array(Image.open(photos / "b.png")))


def test_an_input_is_never_overwritten(run, photos):
    before = (photos / "b.png").read_bytes()
    for output in (photos, photos / "b.png"):
        result = run("run", photos / "b.png", "--model", "dcp", "--output", output)
        assert result.exit_code == 1
        assert "would be overwritten" in result.stderr
    assert (photos / "b.png").read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message", "code"),
    [
        (["--model", "dpc"], "Did you mean dcp", 2),
        (["--weights", "gone.safetensors"], "does not exist", 1),
        (["--output", "one.png", "."], "Name a folder", 1),
        (["--model", "identity", "--device", "warp"], "cannot be used here", 2),
        (["--model", "identity", "--output", "b.gif"], ".png", 1),
        (["nothing.jpg"], "nothing.jpg", 1),
    ],
)
def test_wrong_requests_end_with_a_clear_line(run, photos, arguments, message, code):
    result = run("run", photos / "b.png", *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_an_unwritable_output_is_explained(run, photos, tmp_path):
    (tmp_path / "file").write_text("")
    result = run("run", photos / "b.png", "--model", "identity", "--output", tmp_path / "file" / "out.png")
    assert result.exit_code == 1
    assert "Choose another output" in result.stderr


@pytest.mark.slow
def test_list_names_every_model(run):
    result = run("list")
    assert result.exit_code == 0
    assert all(name in result.output for name in list_models())


def test_info_states_size_and_cost(run):
    result = run("info", "api")
    assert result.exit_code == 0, result.output
    for word in ("parameters", "multiply-adds", "sha256", "license"):
        assert word in result.output
    assert run("info", "apj").exit_code == 2
