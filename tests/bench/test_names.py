"""Names from other systems: composed and decomposed letters, and consoles that cannot print them."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from bench.datasets import load
from bench.record import RESULTS

ROOT = Path(__file__).parents[2]


def test_names_pair_however_their_letters_are_composed(tmp_path):
    for folder, name in (("hazy", "e\u0301t\u00e9_1.png"), ("clear", "\u00e9te\u0301.png")):
        (tmp_path / folder).mkdir()
        Image.new("RGB", (16, 16)).save(tmp_path / folder / name)
    [sample] = load(f"folder:{tmp_path}").samples
    assert sample.clear is not None


@pytest.mark.slow
def test_a_console_without_the_letters_of_a_name_ends_no_run(tmp_path):
    for folder in ("set/hazy", "set/clear", "restored"):
        (tmp_path / folder).mkdir(parents=True)
        Image.radial_gradient("L").convert("RGB").resize((32, 32)).save(tmp_path / folder / "a.png")
    command = [sys.executable, "-m", "bench", "score", tmp_path / "restored", "--method", "山"]
    command += ["--dataset", f"folder:{tmp_path / 'set'}", "--metric", "ssim", "--output", tmp_path / "results"]
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)}
    done = subprocess.run([str(part) for part in command], capture_output=True, env=environment, cwd=ROOT)
    assert done.returncode == 0 and b"\\u5c71" in done.stdout, done.stderr


@pytest.mark.slow
def test_the_leaderboard_prints_names_that_a_console_lacks(tmp_path):
    record = next(RESULTS.glob("dcp__sample__*.json"))
    made = tmp_path / record.name
    made.write_text(record.read_text(encoding="utf-8").replace('"name": "dcp"', '"name": "山"'), encoding="utf-8")
    command = [sys.executable, "-m", "leaderboard", "table", str(made)]
    environment = os.environ | {"PYTHONIOENCODING": "cp1252", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, capture_output=True, env=environment, cwd=ROOT)
    assert done.returncode == 0 and b"\\u5c71" in done.stdout, done.stderr
