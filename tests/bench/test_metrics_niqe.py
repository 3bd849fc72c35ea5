"""NIQE offline: against BasicSR, against pyiqa's own class, and without the network."""

import csv
from importlib.resources import files
from importlib.util import find_spec
from json import loads
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.io import savemat

from bench import metrics

GOLDEN = list(csv.DictReader((Path(__file__).parents[1] / "golden" / "niqe.csv").open()))


def photograph(row):
    package, _, inside = row["package_file"].partition(": ")[2].partition("/")
    with Image.open(Path(find_spec(package).origin).parent / inside) as opened:
        return torch.from_numpy(np.array(opened.convert("RGB"))).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("row", GOLDEN, ids=lambda row: row["photo"])
def test_agrees_with_independent_implementation(row):
    score = metrics.get("niqe")(photograph(row)).item()
    assert score == pytest.approx(float(row["basicsr"]), rel=0.003)  # 0.0014 at most when this was written
    assert score == pytest.approx(float(row["pyiqa"]), rel=0.001)


def test_is_what_pyiqa_gives_by_default(tmp_path, monkeypatch):
    from pyiqa.archs import niqe_arch

    def no_network(*_):
        raise AssertionError("fetches from the network")

    monkeypatch.setattr(niqe_arch, "load_file_from_url", no_network)
    shipped = loads((files("bench.metrics") / "data" / "niqe_pristine.json").read_text())
    path = tmp_path / "niqe.mat"
    savemat(path, {"mu_prisparam": np.array([shipped["mean"]]), "cov_prisparam": np.array(shipped["covariance"])})
    images = torch.cat([photograph(GOLDEN[0])[..., :250, :300], photograph(GOLDEN[0])[..., 200:450, 200:500]])
    network = niqe_arch.NIQE(pretrained_model_path=str(path))
    torch.testing.assert_close(metrics.get("niqe")(images), network(images))
