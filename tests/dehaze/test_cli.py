import importlib
import os
import re
import resource
import shutil
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

import dehaze
from dehaze import Adjustments, batch, list_models
from dehaze.cli import app
from dehaze.dehazer import Dehazer, Restoration

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


def test_metadata_stays_is_named_where_it_cannot_and_is_stripped_on_request(run, tmp_path):
    exif = Image.Exif()
    exif[0x010F] = "Maker"
    Image.new("RGB", (20, 30)).save(tmp_path / "a.jpg", exif=exif, comment=b"hello")
    result = run("run", tmp_path / "a.jpg", "--model", "identity", "--output", tmp_path / "out.bmp")
    assert result.output.count("note: ") == 2
    assert "The EXIF data is left out: BMP cannot hold it." in result.output
    for arguments, kept in (([], True), (["--strip-metadata"], False)):
        result = run("run", tmp_path / "a.jpg", "--model", "identity", "--output", tmp_path / "out.jpg", *arguments)
        assert "note" not in result.output
        data = (tmp_path / "out.jpg").read_bytes()
        assert ((b"Maker" in data), (b"hello" in data)) == (kept, kept)


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


def alpha_png(file, *, opaque=False, size=(9, 7)):
    """Write a PNG file with an alpha channel, whatever its suffix says."""
    image = Image.new("RGBA", size, (90, 120, 150, 255))
    if not opaque:
        image.putpixel((3, 3), (0, 0, 0, 0))
    image.save(file, "PNG")


def kinds(folder):
    """Return the format and mode of every file in a folder by name."""
    found = {}
    for path in sorted(folder.iterdir()):
        with Image.open(path) as image:
            found[path.name] = f"{image.format} {image.mode}"
    return found


def test_a_result_has_the_format_of_its_name_and_holds_what_came(run, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    alpha_png(folder / "transparent.jpg")
    alpha_png(folder / "opaque.jpg", opaque=True)
    alpha_png(folder / "opaque.bmp", opaque=True)
    alpha_png(folder / "transparent.bmp")
    alpha_png(folder / "opaque.png", opaque=True)
    Image.new("I;16", (9, 7), 999).save(folder / "deep.jpeg", "PNG")
    Image.new("I;16", (9, 7), 999).save(folder / "deep.webp", "TIFF")
    Image.new("RGB", (9, 7)).save(folder / "wide.PNG", "JPEG")
    assert run("run", folder, "--model", "identity", "--output", "out").exit_code == 0
    assert kinds(tmp_path / "out") == {
        "deep.png": "PNG I;16",
        "deep_2.png": "PNG I;16",
        "opaque.bmp": "BMP RGB",
        "opaque.jpg": "JPEG RGB",
        "opaque.png": "PNG RGBA",
        "transparent.png": "PNG RGBA",
        "transparent_2.png": "PNG RGBA",
        "wide.PNG": "PNG RGB",
    }
    assert run("run", folder, "--model", "identity").exit_code == 0
    assert kinds(folder)["transparent_dehazed_2.png"] == "PNG RGBA"
    again = run("run", folder, "--model", "identity", "--output", "out", "--skip-existing")
    assert again.exit_code == 0
    assert "skipped 8 photographs whose result exists" in again.stderr


def test_a_name_that_changes_after_decoding_takes_no_other_name(run, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    for name in ("a.jpg", "A.bmp"):
        alpha_png(folder / name)
    for name, level in (("a.png", 1), ("a_2.png", 2), ("b.png", 3)):
        Image.new("L", (8, 8), level).save(folder / name)
    assert run("run", folder, "--model", "identity", "--output", "out").exit_code == 0
    found = {name: kind for name, kind in kinds(tmp_path / "out").items() if "RGBA" in kind}
    assert list(found) == ["A_3.png", "a_4.png"]
    for name, level in (("a.png", 1), ("a_2.png", 2), ("b.png", 3)):
        assert Image.open(tmp_path / "out" / name).getpixel((0, 0)) == level


def test_a_chosen_name_holds_what_is_opaque_and_refuses_what_is_not(run, tmp_path):
    alpha_png(tmp_path / "opaque.png", opaque=True)
    alpha_png(tmp_path / "transparent.png")
    assert run("run", "opaque.png", "--model", "identity", "--output", "s.jpg").exit_code == 0
    assert Image.open("s.jpg").format == "JPEG"
    refused = run("run", "transparent.png", "--model", "identity", "--output", "t.jpg")
    assert refused.exit_code == 1
    assert "JPEG has none. Use .png" in refused.stderr
    assert not Path("t.jpg").exists()


def test_a_stopped_run_continues(run, photos):
    first = run("run", photos, "--model", "identity", "--output", "out")
    (photos.parent / "out" / "b.png").unlink()
    kept = photos.parent / "out" / "a.jpg"
    kept.write_bytes(b"kept as it is")
    second = run("run", photos, "--model", "identity", "--output", "out", "--skip-existing")
    assert (first.exit_code, second.exit_code) == (0, 0)
    assert [line.split()[0] for line in second.stdout.splitlines()] == [str(Path("out", "b.png"))]
    assert "skipped 2 photographs whose result exists" in second.stderr
    assert kept.read_bytes() == b"kept as it is"
    os.utime(photos / "a.jpg", (2e9, 2e9))  # changed after its result
    assert "a.jpg" in run("run", photos, "--model", "identity", "--output", "out", "--skip-existing").stdout


def test_results_below_the_photographs_are_not_restored_again(run, photos, monkeypatch):
    monkeypatch.chdir(photos)
    for _ in range(2):
        result = run("run", ".", "--model", "identity", "--output", "out")
        assert result.exit_code == 0
        assert len([path for path in Path("out").rglob("*") if path.is_file()]) == 3
    assert "skipped 3 results of earlier runs" in result.stderr


def test_what_is_not_restored_is_named(run, photos):
    for name in ("DSC_1.NEF", "notes.txt", "Thumbs.db", "._a.jpg"):
        (photos / name).touch()
    result = run("run", photos, "--model", "identity", "--output", "out")
    assert result.exit_code == 0
    (line,) = (line for line in result.stderr.splitlines() if line.startswith("skipped"))
    assert "2 files without the suffix" in line and "DSC_1.NEF" in line and "notes.txt" in line


@pytest.mark.parametrize("stage", ["decode", "network", "encode"])
@pytest.mark.parametrize("error", [ZeroDivisionError("odd"), KeyError(), OSError(5, "odd"), MemoryError()], ids=repr)
def test_no_exception_of_one_photograph_ends_the_others(run, photos, tmp_path, monkeypatch, stage, error):
    place, name = {
        "decode": ("dehaze.batch", "read_photo"),
        "network": ("dehaze.dehazer.Dehazer", "restore_tensor"),
        "encode": ("dehaze.io.photo", "write_whole"),
    }[stage]
    module, _, owner = place.rpartition(".") if stage == "network" else (place, "", "")
    holder = getattr(sys.modules[module], owner) if owner else importlib.import_module(module)
    real, calls = getattr(holder, name), []

    def fail_second(*arguments, **options):
        calls.append(arguments)
        if len(calls) == 2:
            raise error
        return real(*arguments, **options)

    monkeypatch.setattr(holder, name, fail_second)
    result = run("run", photos, "--model", "identity", "--output", tmp_path / "out")
    assert result.exit_code == 1
    (failure,) = (line for line in result.stderr.splitlines() if line.startswith("failed:"))
    assert "b.png" in failure
    assert "1 of 3 failed" in result.stderr
    assert sorted(path.name for path in (tmp_path / "out").rglob("*.*")) == ["a.jpg", "a.jpg"]


@pytest.mark.slow
@pytest.mark.parametrize("target", ["/dev/full", "closed"])
def test_a_print_that_fails_does_not_end_a_batch(photos, tmp_path, target):
    command = [sys.executable, "-m", "dehaze", "run", photos, "--model", "identity", "--output", tmp_path / "out"]
    if target == "closed":
        reading, writing = os.pipe()
        os.close(reading)
    else:
        writing = os.open(target, os.O_WRONLY)
    result = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stdout=writing, stderr=subprocess.PIPE)
    os.close(writing)
    assert b"Traceback" not in result.stderr
    assert len([path for path in (tmp_path / "out").rglob("*") if path.is_file()]) == 3


def test_at_most_one_photograph_waits_on_each_side(run, photos, tmp_path, monkeypatch):
    """Sixteen photographs; the one in the network is the oldest that is not written, but for two."""
    for number in range(13):
        shutil.copy(photos / "b.png", photos / f"c{number:02}.png")
    read, saved, begun = batch.read_photo, Restoration.save, []
    events: list[str] = []
    monkeypatch.setattr(batch, "read_photo", lambda *a, **b: (events.append("read"), read(*a, **b))[1])
    monkeypatch.setattr(Restoration, "save", lambda *a, **b: (saved(*a, **b), events.append("saved"))[0])
    restore = Dehazer.__call__
    monkeypatch.setattr(Dehazer, "__call__", lambda *a, **b: (begun.append(list(events)), restore(*a, **b))[1])
    assert run("run", photos, "--model", "identity", "--output", tmp_path / "out").exit_code == 0
    assert events.count("saved") == len(begun) == 16
    for number, before in enumerate(begun):  # the network begins this one
        assert before.count("read") <= number + 2
        assert before.count("saved") >= number - 2


def test_timing_adds_up(run, photos):
    result = run("run", photos, "--model", "identity", "--output", "out", "--timing")
    line = result.stdout.splitlines()[-1]
    pattern = r"decode ([\d.]+) s, network ([\d.]+) s, encode ([\d.]+) s; together ([\d.]+) s, one by one ([\d.]+) s"
    decode, network, encode, _, sequential = map(float, re.fullmatch(pattern, line).groups())
    assert sequential == pytest.approx(decode + network + encode, abs=0.21)


@pytest.mark.slow
@pytest.mark.parametrize("damaged", [[], ["b.png"], ["a.jpg", "c.gif"]], ids=str)
def test_two_processes_share_a_folder(photos, tmp_path, damaged):
    for name in ("a.bmp", "c.gif", "c.png"):
        Image.new("L", (8, 8), 7).save(photos / name)
    for name in damaged:
        (photos / name).write_bytes(b"no photograph")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m", "dehaze"]
    command += ["run", photos, "--model", "identity", "--output", tmp_path / "out"]
    result = subprocess.run(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True)
    assert result.returncode == (1 if damaged else 0), result.stderr
    written = {path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*")}
    results = {"a.bmp": "a.bmp", "a.jpg": "a.jpg", "b.png": "b.png", "c.gif": "c.png", "c.png": "c_2.png"}
    assert written == {results[name] for name in results if name not in damaged} | {"deep/a.jpg"}
    assert result.stdout.count("8×8") + result.stdout.count("30×20") == len(written)  # each is restored once
    for name in damaged:
        assert re.search(rf"failed: .*{name} is not an image", result.stderr)


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
    (photos / "a.jpg").rename(photos / "a\x1b[31m\n\u202e:fog:.jpg")
    (photos / "b\x1b]0;title\x07.png").write_bytes(b"no photograph")
    result = run("run", photos, "--model", "identity", "--output", tmp_path / "out")
    assert r"a\x1b[31m\n\u202e:fog:.jpg" in result.stdout and r"b\x1b]0;title\x07.png" in result.stderr
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


def test_adjustments_replace_the_looks_own(run, photos, tmp_path, monkeypatch):
    seen = []

    def remember(self, photo, strength):
        seen.append((self.look, self.adjustments, strength))
        return restore(self, photo, strength)

    restore = Dehazer.__call__
    monkeypatch.setattr(Dehazer, "__call__", remember)
    out = ("--output", tmp_path / "out.png")
    run("run", photos / "b.png", *out, "--look", "faithful", "--skies", "0.25", "--strength", "-0.5")
    run("run", photos / "b.png", *out, "--brightness", "0")
    own = dehaze.load("api", look="photo").adjustments
    assert seen == [
        ("faithful", Adjustments(skies=0.25, shadows=1), -0.5),
        ("photo", replace(own, brightness=0), 1),
    ]


def test_results_of_a_model_from_outside_are_not_adjusted(run, photos, tmp_path):
    (tmp_path / "mine.py").write_text("def halve(pixels):\n    return pixels // 2\n")
    command = ("run", photos / "b.png", "--model", f"{tmp_path / 'mine.py'}:halve", "--output", tmp_path / "out.png")
    for options in ("--skies", "0.5"), ("--brightness", "0"), ("--look", "photo"):
        result = run(*command, *options)
        assert result.exit_code == 2
        assert f"leave {' '.join(options[:1])} out" in result.stderr or "leave the look photo out" in result.stderr
    assert run(*command, "--strength", "0.5").exit_code == 0


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


def test_density_prints_the_mean_and_writes_the_map(run, photos):
    for options, folders in (((), [photos, photos / "deep"]), (("--output", "maps"), [Path("maps")])):
        result = run("density", photos, *options)
        assert result.exit_code == 0, result.output
        assert result.output.count("mean density 0.") == 3
        maps = [path for folder in folders for path in folder.glob("*_haze_density*.png")]
        assert len(maps) == 3
    assert {path.name for path in Path("maps").iterdir()} == {
        *("a_haze_density.png", "a_haze_density_2.png", "b_haze_density.png"),
    }
    with Image.open("maps/b_haze_density.png") as map_:
        assert (map_.mode, map_.size) == ("L", (30, 20))
        mean = np.asarray(map_).mean() / 255
    line = next(line for line in run("density", photos / "b.png").output.splitlines() if "b.png" in line)
    assert float(re.search(r"mean density ([0-9.]+)", line)[1]) == pytest.approx(mean, abs=0.003)


def test_the_map_of_one_photograph_can_be_named(run, photos):
    assert run("density", photos / "b.png", "--output", "map.png").exit_code == 0
    assert Path("map.png").is_file()
    result = run("density", photos, "--output", "map.png")
    assert result.exit_code == 1 and "is one file, and 3 photographs are given" in result.output


def test_density_needs_a_model_that_estimates_one_and_goes_on_after_a_failure(run, photos):
    result = run("density", photos / "b.png", "--model", "identity")
    assert result.exit_code == 1 and "identity estimates no haze density" in result.output
    (photos / "a.jpg").write_bytes(b"")
    result = run("density", photos)
    assert result.exit_code == 1 and "is empty" in result.output
    assert (photos / "b_haze_density.png").exists()
