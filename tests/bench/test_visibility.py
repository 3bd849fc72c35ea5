"""Densities against a visibility that the test itself makes, by the law of Koschmieder."""

import numpy as np
import pytest
from PIL import Image
from scipy import stats
from typer.testing import CliRunner

from bench import visibility
from bench.cli import app
from bench.errors import DatasetError, UsageError


@pytest.fixture
def frames(tmp_path):
    """Write twelve frames of one scene, from 100 m to 20 km, shuffled, and their table."""
    rng = np.random.default_rng(0)
    scene = np.kron(rng.random((12, 16, 3)), np.ones((8, 8, 1)))
    distance = np.linspace(400, 20, 96)[:, None, None]  # m: far at the top
    rows = ["file,visibility_m"]
    for number, metres in enumerate(rng.permutation(np.geomspace(100, 20_000, 12))):
        t = np.exp(-3.912 / metres * distance)
        image = scene * t + 0.85 * (1 - t)
        Image.fromarray((image * 255).round().astype(np.uint8)).save(tmp_path / f"{number:02}.png")
        rows.append(f"{number:02}.png,{metres:.1f}")
    (tmp_path / "index.csv").write_text("\n".join(rows) + "\n")
    return tmp_path


def test_the_correlation_is_spearmans_and_its_interval_holds_it():
    rng = np.random.default_rng(1)
    metres = rng.random(40)
    readings = -metres + rng.normal(0, 0.3, 40)
    found = visibility.agreement(readings, metres)
    assert found.rho == pytest.approx(stats.spearmanr(readings, metres).statistic)
    assert -1 <= found.low < found.rho < found.high < 0 and found.frames == 40
    assert visibility.agreement(readings, metres) == found


@pytest.mark.slow
def test_a_density_head_tells_the_visibility(frames):
    result = CliRunner().invoke(app, ["visibility", str(frames), "--meter", "api", "--meter", "entropy"])
    assert result.exit_code == 0, result.output
    line = next(line for line in result.output.splitlines() if line.split()[:1] == ["api"])
    assert float(line.split()[1]) < -0.9 and line.split()[-1] == "12"


def test_what_cannot_be_measured_is_explained(frames, tmp_path):
    with pytest.raises(UsageError, match="draco estimates no density"):
        visibility.make_meters(["draco"])
    with pytest.raises(UsageError, match="psnr compares two images"):
        visibility.make_meters(["psnr"])
    (frames / "03.png").unlink()
    with pytest.raises(DatasetError, match=r"names files that are not there: 03\.png"):
        visibility.read_frames(frames)
    (frames / "index.csv").write_text("file,metres\n00.png,3\n")
    with pytest.raises(DatasetError, match="columns file and visibility_m"):
        visibility.read_frames(frames)
    (frames / "index.csv").write_text("file,visibility_m\n00.png,3\n01.png,3\n")
    with pytest.raises(DatasetError, match="fewer than three different visibilities"):
        visibility.read_frames(frames)
