"""The version of the code covers what changes numbers, and nothing else."""

import shutil
from pathlib import Path

import pytest

from bench import environment

ROOT = Path(__file__).parents[2]


@pytest.fixture
def copy(tmp_path):
    for package in ("dehaze", "bench"):
        shutil.copytree(ROOT / package, tmp_path / package, ignore=shutil.ignore_patterns("weights", "sample", "*.pyc"))
    return tmp_path


def version(root):
    environment.code.cache_clear()
    return environment.code(root)


def test_a_copy_of_the_code_has_its_version(copy):
    assert version(copy) == version(ROOT) and len(version(copy)) == 16


@pytest.mark.parametrize(
    "path",
    [
        "dehaze/networks/api/network.py", "dehaze/networks/dcp.py", "dehaze/filters/guided.py", "dehaze/io/photo.py",
        "dehaze/dehazer.py", "dehaze/adjust.py", "dehaze/networks/api/colour_maps.py", "bench/metrics/niqe.py",
        "bench/metrics/data/niqe_pristine.json", "bench/protocol.py", "bench/methods/shipped.py",
        "bench/datasets/catalogue.toml",
    ],
)  # fmt: skip
def test_what_restores_or_scores_changes_it(copy, path):
    before = version(copy)
    (copy / path).write_bytes((copy / path).read_bytes() + b"\n# changed\n")
    assert version(copy) != before


@pytest.mark.parametrize(
    "path",
    [
        "dehaze/page/batch.py", "dehaze/cli.py", "dehaze/__main__.py", "dehaze/haze/cli.py", "bench/cli.py",
        "bench/report/table.py", "bench/report/cli.py", "dehaze/training/loop.py", "bench/README.md",
    ],
)  # fmt: skip
def test_what_shows_reports_or_trains_does_not(copy, path):
    before = version(copy)
    (copy / path).write_bytes((copy / path).read_bytes() + b"\n# changed\n")
    (copy / "dehaze" / "page" / "another.py").write_text("A = 1\n")
    assert version(copy) == before


def test_a_new_module_changes_it(copy):
    before = version(copy)
    (copy / "dehaze" / "networks" / "another.py").write_text("A = 1\n")
    assert version(copy) != before
