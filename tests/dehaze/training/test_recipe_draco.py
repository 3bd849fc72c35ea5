from dataclasses import replace
from functools import partial

import pytest
import torch
from skimage.metrics import structural_similarity

from dehaze.hub import load_network
from dehaze.networks.draco import DRACO
from dehaze.training.checkpoint import TrainingState
from dehaze.training.loop import train
from dehaze.training.recipes import RECIPES
from dehaze.training.recipes.draco import DRACOObjective


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    clear = torch.rand(2, 3, 24, 32, generator=torch.Generator().manual_seed(0))
    return {"index": torch.arange(2), "hazy": clear.lerp(torch.tensor(0.8), 0.5), "clear": clear}


def test_the_loss_is_mae_and_ssim_of_the_second_result(batch, features):
    torch.manual_seed(0)
    network = DRACO()
    with torch.no_grad():
        terms = DRACOObjective(network, network, features)(batch, 0.0)
        restored = network(batch["hazy"])
    assert set(terms) == {"l1", "ssim", "quadruplet"}
    assert terms["l1"].item() == pytest.approx((restored - batch["clear"]).abs().mean().item(), rel=1e-5)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
    pairs = zip(restored.double().numpy(), batch["clear"].double().numpy(), strict=True)
    expected = [structural_similarity(*pair, channel_axis=0, **options) for pair in pairs]
    assert terms["ssim"].item() == pytest.approx(1 - sum(expected) / 2, abs=1e-4)
    assert terms["quadruplet"] > 0


def test_gradients_reach_network_and_encoders(batch, features):
    torch.manual_seed(0)
    network = DRACO()
    objective = DRACOObjective(network, network, features)
    sum(objective(batch, 0.0).values()).backward()
    trained = {parameter for parameter in objective.parameters() if parameter.requires_grad}
    assert trained == {*network.parameters(), *objective.critic.parameters()}
    assert all(parameter.grad is not None for parameter in trained)


def test_checkpoints_keep_the_encoders(features, tmp_path):
    objectives = [DRACOObjective(network, network, features) for network in (DRACO(), DRACO())]
    states = [
        TrainingState(each.network, DRACO(), torch.optim.AdamW(each.parameters()), each.critic) for each in objectives
    ]
    states[0].save(tmp_path / "checkpoint.safetensors")
    states[1].load(tmp_path / "checkpoint.safetensors")
    kept, loaded = (list(each.quadruplet.encoders.parameters()) for each in objectives)
    assert all(torch.equal(a, b) for a, b in zip(kept, loaded, strict=True))


def test_the_two_forms_differ_in_nothing_else():
    intent, published = RECIPES.get("draco"), RECIPES.get("draco_published")
    assert isinstance(published.objective, partial)
    assert published.objective.keywords == {"quadruplet": "published"}
    assert replace(published, objective=intent.objective) == intent


@pytest.mark.slow
@pytest.mark.parametrize("name", ["draco", "draco_published"])
def test_a_short_run_gives_weights_that_load(name, data, features, tmp_path):
    recipe = replace(RECIPES.get(name), steps=2, batch=2, crop=32, warmup=0)
    weights = train(recipe, data, tmp_path, features=features, workers=0, precision="bf16")
    network, _ = load_network("draco", weights)
    assert isinstance(network, DRACO)
    assert "quadruplet" in (tmp_path / "log.csv").read_text()
