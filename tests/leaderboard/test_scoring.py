"""Predictions from an archive to a record that may be proposed, by the harness in a process of its own."""

import io
import zipfile

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from bench import cli as bench
from bench.record import Method
from leaderboard.cli import app
from leaderboard.errors import SubmissionError
from leaderboard.scoring import score


def png(seed, low=0):
    """A picture with structure, large enough for every default metric."""
    small = np.random.default_rng(seed).integers(low, 256, (26, 26, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((208, 208), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


@pytest.fixture
def dataset(tmp_path):
    for kind, low in (("hazy", 128), ("clear", 0)):
        (tmp_path / "set" / kind).mkdir(parents=True)
        for name in "ab":
            (tmp_path / "set" / kind / f"{name}.png").write_bytes(png(ord(name), low))
    return f"folder:{tmp_path / 'set'}"


def pack(path, low):
    with zipfile.ZipFile(path, "w") as archive:
        for name in "ab":
            archive.writestr(f"restored/{name}.png", png(ord(name), low))
    return path


def test_predictions_become_a_record_that_is_checked_against_the_board(dataset, tmp_path):
    results, options = tmp_path / "results", ["--dataset", dataset, "--method"]
    first = ["score", "--predictions", str(pack(tmp_path / "first.zip", 96)), "--output", str(results)]
    assert CliRunner().invoke(bench.app, [*first, *options, "first"]).exit_code == 0
    second = ["submit", str(pack(tmp_path / "second.zip", 64)), "--dry-run", "--results", str(results)]
    done = CliRunner().invoke(app, [*second, *options, "--help", "--trained-on", "SUN", "--trained-on", "COCO"])
    assert done.exit_code == 0, done.output
    for line in (
        "right  data set: folder:set",
        "right  completeness: psnr, ssim, ciede2000, niqe, fade_refit on every image",
        "right  training data: SUN, COCO",
        "results/--help__folder-set__native-v1.json",
    ):
        assert line in done.output


def test_what_cannot_be_scored_is_told_in_the_harness_words(dataset, tmp_path):
    path = tmp_path / "half.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.png", png(1))
    with pytest.raises(SubmissionError, match=r"half\.zip has no restored image for b of folder:set"):
        score(path, dataset, "native-v1", Method(name="m"), tmp_path / "results")


def test_scoring_ends_in_time(dataset, tmp_path):
    with pytest.raises(SubmissionError, match=r"took more than 0\.1 seconds"):
        score(tmp_path / "a.zip", dataset, "native-v1", Method(name="m"), tmp_path / "results", seconds=0.1)
