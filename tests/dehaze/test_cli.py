import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from dehaze import list_models
from dehaze.cli import app


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


def test_fast_is_handed_on(run, photos, tmp_path, monkeypatch):
    monkeypatch.setattr("dehaze.dehazer.FAST_PIXELS", 100)
    pixels = []
    for options in ([], ["--fast"]):
        assert run("run", photos / "b.png", "--model", "dcp", *options, "--output", tmp_path / "out.png").exit_code == 0
        pixels.append(np.array(Image.open(tmp_path / "out.png")))
    assert pixels[0].shape == pixels[1].shape
    assert not np.array_equal(*pixels)


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
    ("arguments", "message"),
    [
        (["--model", "dpc"], "did you mean dcp"),
        (["--weights", "gone.safetensors"], "does not exist"),
        (["--output", "one.png", "."], "name a folder"),
        (["--model", "identity", "--device", "warp"], "cannot be used here"),
        (["--model", "identity", "--output", "b.xyz"], ".png"),
        (["nothing.jpg"], "nothing.jpg"),
    ],
)
def test_wrong_requests_end_with_a_clear_line(run, photos, arguments, message):
    result = run("run", photos / "b.png", *arguments)
    assert result.exit_code == 1
    assert message in result.stderr
    assert "Traceback" not in result.output


def test_an_unwritable_output_is_explained(run, photos, tmp_path):
    (tmp_path / "file").write_text("")
    result = run("run", photos / "b.png", "--model", "identity", "--output", tmp_path / "file" / "out.png")
    assert result.exit_code == 1
    assert "choose another --output" in result.stderr


def test_list_names_every_model(run):
    result = run("list")
    assert result.exit_code == 0
    assert all(name in result.output for name in list_models())


def test_info_states_size_and_cost(run):
    result = run("info", "api")
    assert result.exit_code == 0, result.output
    for word in ("parameters", "multiply-adds", "sha256", "license"):
        assert word in result.output
    assert run("info", "apj").exit_code == 1
