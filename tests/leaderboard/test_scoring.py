"""Predictions from an archive to a record that may be proposed, by the harness in a process of its own."""

import pytest
from typer.testing import CliRunner

from bench import cli as bench
from bench.record import Method
from leaderboard.cli import app
from leaderboard.errors import SubmissionError
from leaderboard.scoring import score


@pytest.mark.slow
def test_predictions_become_a_record_that_is_checked_against_the_board(dataset, pack, tmp_path):
    results, options = tmp_path / "results", ["--dataset", dataset, "--method"]
    first = ["score", str(pack(tmp_path / "first.zip", 96)), "--output", str(results)]
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


@pytest.mark.slow
def test_what_cannot_be_scored_is_told_in_the_harness_words(dataset, pack, tmp_path):
    path = pack(tmp_path / "half.zip", 96, "a")
    with pytest.raises(SubmissionError) as caught:
        score(path, dataset, "native-v1", Method(name="m"), tmp_path / "results")
    assert caught.value.subject == path and caught.value.reason == "has no restored image for b of folder:set."


def test_scoring_ends_in_time(dataset, tmp_path):
    with pytest.raises(SubmissionError, match=r"took more than 0\.1 seconds"):
        score(tmp_path / "a.zip", dataset, "native-v1", Method(name="m"), tmp_path / "results", seconds=0.1)
