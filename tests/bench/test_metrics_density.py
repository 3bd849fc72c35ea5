"""Mean haze density by CLIP, of a model of random weights."""

import pytest
import torch

from bench import metrics
from bench.metrics import MetricError
from dehaze import hub
from dehaze.density import load_density


@pytest.fixture(scope="module")
def clip(tmp_path_factory):
    from dehaze.training.recipes.clip import make_clip, save_clip

    folder = tmp_path_factory.mktemp("clip")
    torch.manual_seed(0)
    save_clip(make_clip(width=32, layers=1), folder)
    return folder


@pytest.mark.slow
def test_it_is_the_mean_of_the_map(clip):
    images = torch.rand(2, 3, 40, 56, generator=torch.Generator().manual_seed(1))
    scores = metrics.get("density", clip=clip)(images)
    torch.testing.assert_close(scores, load_density(clip).map(images).mean((1, 2, 3)).double())
    assert 0 < scores.min() < scores.max() < 1


def test_without_a_model_it_says_what_to_give(tmp_path, monkeypatch):
    monkeypatch.setattr(hub, "SHIPPED", tmp_path)
    assert metrics.lacking("density") == "--clip DIR"
    with pytest.raises(MetricError, match=r"No CLIP model ships .*--clip DIR"):
        metrics.get("density")
    with pytest.raises(MetricError, match="is neither a folder of a CLIP model nor a Hub id"):
        metrics.get("density", clip=tmp_path / "nowhere")


def test_it_is_described_without_a_model():
    spec = metrics.spec("density")
    assert (spec.direction, spec.low, spec.high, spec.reference) == ("down", 0, 1, False)
