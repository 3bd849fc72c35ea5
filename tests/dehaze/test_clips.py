"""The command line restores clips."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dehaze.cli import app
from dehaze.clips import plan_clips, split_clips
from dehaze.errors import OutputError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    return lambda *arguments: CliRunner().invoke(app, ["run", *(str(argument) for argument in arguments)])


def clip(path, count=3, size=(64, 48)):
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as output:
        stream = output.add_stream("libx264", 10, width=size[0], height=size[1])
        for _ in range(count):
            pixels = random.integers(80, 200, (*size[::-1], 3), dtype=np.uint8)
            output.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        output.mux(stream.encode(None))
    return path


def frames(path):
    with av.open(str(path)) as container:
        return [(frame.width, frame.height) for frame in container.decode(video=0)]


@pytest.mark.slow
def test_one_clip_to_one_file(run, tmp_path):
    result = run(clip(tmp_path / "a.mov"), "--output", tmp_path / "new" / "clear.mp4")
    assert result.exit_code == 0, result.output
    assert "clear.mp4  3 frames" in result.stdout
    assert frames(tmp_path / "new" / "clear.mp4") == [(64, 48)] * 3


@pytest.mark.slow
def test_clips_beside_photographs_and_failures(run, tmp_path):
    Image.new("RGB", (32, 32), (99, 120, 130)).save(tmp_path / "a.png")
    clip(tmp_path / "a.mp4")
    (tmp_path / "b.mp4").write_bytes(b"no clip, and longer than twelve bytes")
    result = run("a.png", "a.mp4", "b.mp4", "--output", "out")
    assert result.exit_code == 1
    assert "b.mp4 is not an MP4, MOV or WebM clip" in result.stderr and "1 of 3 failed" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["a.mp4", "a.png"]


@pytest.mark.slow
def test_a_long_clip_has_no_limit_here(run, tmp_path):
    assert run(clip(tmp_path / "a.mp4", count=130, size=(16, 16))).exit_code == 0  # 13 s, and the page takes 10
    assert len(frames(tmp_path / "a_dehazed.mp4")) == 130


def test_models_that_would_flicker_are_refused(run, tmp_path):
    result = run(clip(tmp_path / "a.mp4"), "--model", "dcp")
    assert result.exit_code == 1
    assert "dcp restores every frame afresh" in result.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["a.mp4"]


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_a_killed_run_leaves_no_half_clip_and_the_next_clears_up(run, tmp_path):
    source, target = clip(tmp_path / "a.mp4", count=2000), tmp_path / "out" / "clear.mp4"
    command = [sys.executable, "-m", "dehaze", "run", str(source), "--output", str(target)]
    process = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.DEVNULL)
    try:
        while not (target.parent.exists() and any(path.stat().st_size for path in target.parent.iterdir())):
            assert process.poll() is None
    finally:
        os.kill(process.pid, signal.SIGKILL)
        process.wait()
    (unfinished,) = target.parent.iterdir()
    assert unfinished.name.startswith(".dehaze-")
    short = clip(tmp_path / "b.mp4")
    assert run(short, "--output", target).exit_code == 0
    assert [path.name for path in target.parent.iterdir()] == ["clear.mp4"]


def test_clips_are_told_by_their_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for name in ("a.MP4", "b.mov", "c.jpg"):
        Path(name).touch()
    Path("folder.mp4").mkdir()
    clips, results, others = split_clips(["c.jpg", "a.MP4", "*.mov", "folder.mp4", "a.MP4", "gone.webm"])
    assert clips == [Path("a.MP4"), Path("b.mov"), Path("gone.webm")]
    assert (results, others) == ([], ["c.jpg", "folder.mp4"])


def test_no_two_results_share_a_name_and_no_input_is_overwritten(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    sources = [Path("a.mov"), Path("a.mp4")]
    for source in sources:
        source.touch()
    assert list(plan_clips(sources).values()) == [Path("a_dehazed.mp4"), Path("a_dehazed_2.mp4")]
    assert list(plan_clips(sources, "out").values()) == [Path("out/a.mp4"), Path("out/a_2.mp4")]
    with pytest.raises(OutputError, match="is an input and would be overwritten"):
        plan_clips(sources, ".")
    with pytest.raises(OutputError, match="is one file, but more are given"):
        plan_clips(sources, "clear.mp4")
    with pytest.raises(OutputError, match=r"clear\.webm cannot be written: clips are written as MP4"):
        plan_clips(sources[:1], "clear.webm")
    Path("a_dehazed.mp4").touch()
    assert list(plan_clips(sources[:1], skip_existing=True)) == []


@pytest.mark.slow
def test_a_second_run_by_pattern_goes_on(run, tmp_path):
    """Results of the first are no clips to restore, and a clip that changed since is restored again."""
    for name in ("a", "b"):
        clip(tmp_path / f"{name}.mp4")
    assert run("*.mp4").exit_code == 0
    first = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*_dehazed.mp4")}
    assert set(first) == {"a_dehazed.mp4", "b_dehazed.mp4"}
    os.utime(tmp_path / "b.mp4", (2**31, 2**31))
    result = run("*.mp4", "--skip-existing")
    assert result.exit_code == 0 and "skipped 1 clip whose result exists" in result.stderr, result.output
    assert "skipped 2 results of earlier runs, such as a_dehazed.mp4" in result.stderr
    again = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob("*_dehazed*.mp4")}
    assert again["a_dehazed.mp4"] == first["a_dehazed.mp4"] and again["b_dehazed.mp4"] > first["b_dehazed.mp4"]
    assert set(again) == set(first)


def test_outputs_that_do_not_fit_are_refused_before_anything_is_written(run, tmp_path):
    clip(tmp_path / "a.mp4")
    Image.new("RGB", (32, 32)).save(tmp_path / "b.png")
    for inputs, output, message in (
        (["a.mp4"], "x.png", "x.png is a photograph's name, and a clip becomes MP4"),
        (["a.mp4", "b.png"], "z.jpg", "z.jpg is a photograph's name, and a clip becomes MP4"),
        (["b.png"], "x.mp4", "x.mp4 is a clip's name, and no input has the suffix of a clip"),
    ):
        result = run(*inputs, "--output", output)
        assert result.exit_code == 1 and message in result.stderr, result.output
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.mp4", "b.png"]
