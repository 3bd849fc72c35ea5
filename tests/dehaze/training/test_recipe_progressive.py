"""The objective of the progressive framework and its recipes, around both backbones."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor, nn

from dehaze import hub
from dehaze.errors import WeightsError
from dehaze.hub import load_network, save_weights
from dehaze.networks import NETWORKS
from dehaze.training.loop import train
from dehaze.training.recipes import RECIPES
from dehaze.training.recipes.progressive import CONTRAST_START, ProgressiveObjective
from dehaze.training.start import make_network
from dehaze.training.windows import hazy_windows


class Steps(nn.Module):
    """Three stages: nearer and nearer to the hazy image darkened by what is learned."""

    def __init__(self):
        super().__init__()
        self.darker = nn.Parameter(torch.tensor(0.2))

    def stages(self, hazy: Tensor) -> list[Tensor]:
        return [hazy - self.darker * share for share in (0.3, 0.6, 1.0)]


@pytest.fixture
def batch() -> dict[str, Tensor]:
    clear = 0.5 * torch.rand(4, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    return {"index": torch.arange(4), "hazy": clear + 0.4, "clear": clear}


def test_later_stages_count_more(batch):
    """Errors are 0.4 − 0.06, 0.4 − 0.12 and 0.4 − 0.2; weights ½, ¾ and 1."""
    terms = ProgressiveObjective(Steps(), None, contrast=False)(batch, 1.0)
    assert set(terms) == {"l1"}
    assert terms["l1"].item() == pytest.approx(0.5 * 0.34 + 0.75 * 0.28 + 0.2, rel=1e-4)


def test_a_single_stage_counts_in_full(batch):
    network = Steps()
    network.stages = lambda hazy: [hazy - 0.2]
    assert ProgressiveObjective(network, None, contrast=False)(batch, 0.0)["l1"].item() == pytest.approx(0.2, rel=1e-4)


def test_learned_haze_replaces_the_first_sample(batch):
    """Learned haze is none that a subtraction undoes: the error of that sample alone changes."""
    physical, learned = (
        ProgressiveObjective(Steps(), None, generator=generator, contrast=False)(batch, 0.0)["l1"].item()
        for generator in (False, True)
    )
    assert learned != pytest.approx(physical, rel=1e-3)
    for backbone, expected in {"api": True, "draco": False}.items():
        objective = RECIPES.get(f"progressive_{backbone}").objective(Steps(), None, contrast=False)
        assert (objective.generator is not None) == expected


def test_contrast_joins_halfway_and_reaches_the_network(batch, features):
    network = Steps()
    objective = ProgressiveObjective(network, None, features)
    early, late = objective(batch, CONTRAST_START - 0.01), objective(batch, CONTRAST_START)
    assert early["inter"] == early["intra"] == 0
    assert early["l1"] == late["l1"]
    for half in ("inter", "intra"):
        (gradient,) = torch.autograd.grad(late[half], network.darker, retain_graph=True)
        assert gradient.abs() > 0
    assert [parameter for parameter in objective.parameters() if parameter.requires_grad] == [network.darker]


def test_clear_samples_are_not_contrasted(batch, features):
    objective = ProgressiveObjective(Steps(), None, features)
    as_clear = batch | {"hazy": batch["clear"]}
    assert objective(as_clear, 1.0)["inter"] == 0
    mixed = {key: torch.cat([batch[key][:1], as_clear[key][1:]]) for key in batch}
    alone = {key: batch[key][:1] for key in batch}
    for half in ("inter", "intra"):
        torch.testing.assert_close(objective(mixed, 1.0)[half], objective(alone, 1.0)[half], rtol=1e-4, atol=0)


def test_windows_lie_within_and_come_from_the_draws(batch):
    cut = [hazy_windows(batch, 0.5, 24, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1)]
    for chosen, window in cut:
        assert chosen.tolist() == [2, 3]
        assert batch["hazy"][window].shape == (4, 3, 24, 24)
    assert cut[0][1] == cut[1][1] != cut[2][1]
    assert batch["hazy"][hazy_windows(batch, 0.5, 96, torch.Generator())[1]].shape == (4, 3, 64, 64)


@pytest.mark.parametrize("backbone", ["api", "draco"])
def test_the_three_of_a_table_differ_in_one_part_each(backbone):
    full, wrapped, plain = (RECIPES.get(f"progressive_{backbone}{part}") for part in ("", "_no_contrast", "_plain"))
    assert full.network is wrapped.network is NETWORKS.get(f"progressive:{backbone}")
    assert plain.network is NETWORKS.get(backbone)
    assert wrapped.objective is plain.objective
    assert full.objective(full.network, None, contrast=False).contrast is None
    assert replace(plain, model=full.model, network=full.network, objective=full.objective) == full
    assert replace(wrapped, objective=full.objective) == full


@pytest.mark.slow
@pytest.mark.parametrize("backbone", ["api", "draco"])
@pytest.mark.parametrize("part", ["", "_no_contrast", "_plain"])
def test_a_short_run_gives_weights_that_load(backbone, part, data, features, tmp_path):
    crop = 128 if backbone == "api" else 64
    recipe = replace(RECIPES.get(f"progressive_{backbone}{part}"), steps=2, batch=2, crop=crop, warmup=0)
    weights = train(recipe, data, tmp_path, features=features, workers=0, precision="bf16")
    network, _ = load_network(backbone if part == "_plain" else f"progressive:{backbone}", weights)
    assert network.config == recipe.network().config
    header, last = (tmp_path / "log.csv").read_text().splitlines()
    assert ("inter" in header) == (part == "")
    assert all(float(value) >= 0 for value in last.split(","))


def test_a_run_begins_with_its_own_weights_or_those_of_its_backbone(tmp_path):
    torch.manual_seed(0)
    backbone, wrapped = NETWORKS.get("draco")(), NETWORKS.get("progressive:draco")()
    save_weights(backbone, tmp_path / "backbone")
    save_weights(wrapped, tmp_path / "wrapped")

    around, alone = RECIPES.get("progressive_draco"), RECIPES.get("draco")
    network = make_network(around, tmp_path / "backbone")
    assert all(torch.equal(value, backbone.state_dict()[key]) for key, value in network.backbone.state_dict().items())
    network = make_network(around, tmp_path / "wrapped" / "model.safetensors")
    assert network.training
    assert all(torch.equal(value, wrapped.state_dict()[key]) for key, value in network.state_dict().items())
    with pytest.raises(WeightsError, match="is not of the model 'draco'"):
        make_network(alone, tmp_path / "wrapped")
    with pytest.raises(WeightsError, match="is not of the model 'progressive:draco'"):
        make_network(around, hub.shipped_folder("api"))


def test_a_run_takes_the_configuration_of_its_initial_weights():
    shipped = load_network("progressive:api", "shipped")[0]
    network = make_network(RECIPES.get("progressive_api"), "shipped")
    assert network.config == shipped.config and not network.config.backbone.two_sizes
    assert all(torch.equal(value, shipped.state_dict()[key]) for key, value in network.state_dict().items())


@pytest.mark.slow
@pytest.mark.parametrize("part", ["", "_no_contrast"])
def test_a_frozen_backbone_stays_as_it_is(part, data, features, tmp_path):
    """Its weights, and the threshold by which it routes, which training would move."""
    recipe = replace(RECIPES.get(f"progressive_api_frozen{part}"), steps=2, batch=2, crop=64, warmup=0)
    weights = train(recipe, data, tmp_path, features=features, workers=0)
    trained, _ = load_network("progressive:api", weights)
    kept = load_network("api", "shipped")[0].state_dict()
    assert all(torch.equal(value, kept[key]) for key, value in trained.backbone.state_dict().items())
    torch.manual_seed(recipe.seed)
    untrained = recipe.network().state_dict()
    assert any(not torch.equal(value, untrained[f"prm.{key}"]) for key, value in trained.prm.state_dict().items())


@pytest.mark.slow
def test_a_run_that_learns_nothing_keeps_the_weights_it_began_with(data, tmp_path):
    torch.manual_seed(0)
    network = NETWORKS.get("draco")()
    save_weights(network, tmp_path / "begun")
    recipe = replace(RECIPES.get("progressive_draco_plain"), steps=1, batch=2, crop=64, learning_rate=0.0)
    weights = train(recipe, data, tmp_path / "run", start=tmp_path / "begun" / "model.safetensors", workers=0)
    trained, _ = load_network("draco", weights)
    assert all(torch.equal(value, network.state_dict()[key]) for key, value in trained.state_dict().items())
