"""The objective of API's recipe, with a feature backbone and a haze generator of random weights."""

from functools import partial

import pytest
import torch
from torch import nn

from dehaze.haze.generator import HazeGenerator, load_generator
from dehaze.networks.api.network import API, APIConfig
from dehaze.training.learned_haze import with_learned_haze
from dehaze.training.recipes import RECIPES
from dehaze.training.recipes.api import CONTRAST_START, GENERATOR_START, APIObjective, flat_error


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    draws = torch.Generator().manual_seed(1)
    clear, real = torch.rand(2, 4, 3, 64, 64, generator=draws)
    density = torch.rand(4, 1, 2, 2, generator=draws).repeat_interleave(32, 2).repeat_interleave(32, 3)
    hazy = torch.lerp(clear, torch.tensor(0.8), density)
    return {"index": torch.arange(4), "hazy": hazy, "clear": clear, "density": density, "real": real}


def untrained(**config) -> API:
    torch.manual_seed(0)
    network = API(APIConfig(**config)).eval()
    nn.init.normal_(network.head.weight, std=0.02)
    return network


def test_important_patches_count_more(batch):
    """The error of each patch counts by its importance, and alike in the plain backbone."""
    network = untrained()
    nn.init.normal_(network.importance_head.mlp[-1].weight)
    objective = APIObjective(network, network, generator=False, contrast=False)
    with torch.no_grad():
        maps, importance = network.predict(batch["hazy"])
        restored, _ = network.apply_maps(batch["hazy"], maps)
        error = (restored - batch["clear"]).abs().mean(1, keepdim=True)
        patches = torch.nn.functional.avg_pool2d(error, 32)
        expected = (patches * importance).mean() / importance.mean()
        assert objective(batch, 0.0)["l1"] == pytest.approx(expected.item(), rel=1e-5)
        assert expected != pytest.approx(error.mean().item(), rel=1e-4)
        plain = untrained(importance=False)
        restored, _ = plain.apply_maps(batch["hazy"], plain.predict(batch["hazy"]).maps)
        error = (restored - batch["clear"]).abs().mean()
        alone = APIObjective(plain, plain, generator=False, contrast=False)(batch, 0.0)["l1"]
        assert alone == pytest.approx(error.item(), rel=1e-5)


def test_errors_of_colour_and_grain_count_where_the_truth_is_flat():
    leaves = torch.rand(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    sky = torch.full_like(leaves, 0.7)
    grain = 0.05 * (torch.arange(64) % 2 - 0.5)
    tint = torch.tensor([-0.05, 0.0, 0.05]).view(1, 3, 1, 1)
    assert flat_error(sky + 0.1, sky).item() == pytest.approx(0, abs=1e-6)
    assert flat_error(sky + grain, sky).item() == pytest.approx(0.05, abs=1e-6)  # from each pixel to the next
    change = tint - (tint * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum()
    assert flat_error(sky + tint, sky).item() == pytest.approx(change.abs().mean().item(), abs=1e-6)
    assert flat_error(leaves + grain + tint, leaves).item() == 0


def test_parts_join_as_the_run_goes_on(batch, features):
    network = untrained()
    objective = APIObjective(network, network, features)
    early, later = objective(batch, GENERATOR_START - 0.01), objective(batch, GENERATOR_START)
    last = objective(batch, CONTRAST_START)
    assert set(early) == set(later) == set(last) == {"l1", "flat", "density", "spatial", "frequency"}
    assert early["density"] != later["density"]
    for half in ("spatial", "frequency"):
        assert early[half] == later[half] == 0
        assert last[half] > 0


def test_clear_samples_are_not_contrasted(batch, features):
    """Their hazy image is the clear one: with nothing else in the batch there is nothing to contrast."""
    network = untrained()
    network.requires_grad_(False)
    objective = APIObjective(network, network, features, generator=False)
    as_clear = batch | {"hazy": batch["clear"], "density": torch.zeros_like(batch["density"])}
    assert objective(as_clear, 1.0)["spatial"] == 0
    mixed = {key: torch.cat([batch[key][:1], as_clear[key][1:]]) for key in batch}
    alone = {key: batch[key][:1] for key in batch}
    expected = objective(alone, 1.0)["spatial"]
    assert objective(mixed, 1.0)["spatial"] == pytest.approx(expected.item(), rel=1e-4)


def test_only_the_first_samples_get_learned_haze(batch):
    changed = with_learned_haze(batch, load_generator(), torch.Generator().manual_seed(0))
    for key in ("hazy", "density"):
        differs = (changed[key] - batch[key]).abs().amax((1, 2, 3)) > 0
        assert differs.tolist() == [True, False, False, False], key
    for key in ("clear", "real", "index"):
        assert torch.equal(changed[key], batch[key])


def test_pairs_without_a_known_density_do(batch, features):
    network = untrained()
    del batch["density"]
    assert set(APIObjective(network, network, features)(batch, 1.0)) == {"l1", "flat", "spatial", "frequency"}


def test_a_step_depends_on_its_batch_alone(batch, features):
    network = untrained()
    once, again = (APIObjective(network, network, features)(batch, 1.0) for _ in range(2))
    assert all(torch.equal(once[key], again[key]) for key in once)


@pytest.mark.slow
def test_gradients_reach_the_network_alone(batch, features):
    network, average = untrained(), untrained().requires_grad_(False)
    objective = APIObjective(network, average, features).train()
    sum(objective(batch, 1.0).values()).backward()
    assert all(parameter.grad is not None for parameter in network.parameters())
    trained = {parameter for parameter in objective.parameters() if parameter.requires_grad}
    assert trained == set(network.parameters())
    assert isinstance(objective.generator, HazeGenerator)


@pytest.mark.parametrize("without", ["generator", "importance", "contrast"])
def test_an_ablation_leaves_out_one_part(without, features):
    recipe, full = RECIPES.get(f"api_no_{without}"), RECIPES.get("api")
    assert (recipe.steps, recipe.seed, recipe.renderer, recipe.batch) == (
        full.steps,
        full.seed,
        full.renderer,
        full.batch,
    )
    network = recipe.network()
    objective = recipe.objective(network, network, features=features)
    parts = {
        "generator": objective.generator is not None,
        "contrast": objective.contrast is not None,
        "importance": network.config.importance,
    }
    assert [part for part, there in parts.items() if not there] == [without]
    assert isinstance(full.network(), API)
    assert not isinstance(full.objective, partial)
