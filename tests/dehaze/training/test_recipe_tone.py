"""The recipe of the tone head: the errors of exposure that it learns from, and that it learns."""

import copy
from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F

from dehaze.haze import scatter
from dehaze.training.recipes import RECIPES
from dehaze.training.recipes.tone import ExposureErrors, ToneObjective, expose_wrongly, mean_logarithm, validate

EXACT = ExposureErrors(
    darkening=0, darkening_spread=0, min_gain=1, haze_left=0, haze_left_spread=0, opaque_power=1e9, density_spread=0
)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    """Smooth random scenes of 32 px, from clear air to a fog of density 0.7 at the far side."""
    draws = torch.Generator().manual_seed(0)
    clear = F.interpolate(0.05 + 0.9 * torch.rand(8, 3, 6, 6, generator=draws), size=32, mode="bilinear")
    density = torch.linspace(0, 1, 8).view(8, 1, 1, 1) * torch.linspace(0.5, 0.7, 32).expand(8, 1, 32, 32)
    hazy = scatter(clear, 1 - density, torch.full((8, 3, 1, 1), 0.9))
    return {"index": torch.arange(8), "hazy": hazy, "clear": clear, "density": density}


class TestExposure:
    def test_without_errors_all_is_as_it_was(self, batch):
        seen = expose_wrongly(batch, EXACT)
        torch.testing.assert_close(seen.hazy, batch["hazy"])
        for image in (seen.restored, seen.target):
            torch.testing.assert_close(image, batch["clear"])
        assert torch.equal(seen.density, batch["density"])

    def test_the_haze_stays_and_the_scene_behind_it_darkens(self, batch):
        seen = expose_wrongly(batch, replace(EXACT, darkening=0.5))
        severity = (2 * batch["density"].mean((1, 2, 3), keepdim=True)).square().clamp_max(1)
        dark = batch["clear"] ** (0.5 * severity).exp()
        torch.testing.assert_close(seen.restored, dark)
        torch.testing.assert_close(seen.hazy, scatter(dark, 1 - batch["density"], torch.full((8, 3, 1, 1), 0.9)))
        assert torch.equal(seen.target, batch["clear"])

    def test_errors_grow_with_the_haze(self, batch):
        seen = expose_wrongly(batch, ExposureErrors(haze_left=0, haze_left_spread=0, opaque_power=1e9))
        darker = (mean_logarithm(batch["clear"]) - mean_logarithm(seen.restored)).tolist()
        assert darker[0] == pytest.approx(0, abs=1e-5)
        assert darker[7] > darker[4] > darker[1] > -0.01

    def test_opaque_haze_stays_and_so_does_its_exposure(self, batch):
        seen = expose_wrongly(batch | {"density": torch.ones_like(batch["density"]), "hazy": 0 * batch["hazy"] + 0.8})
        assert torch.equal(seen.restored, torch.full_like(seen.restored, 0.8))
        assert torch.equal(seen.target, seen.restored)

    def test_a_sample_depends_on_its_index_alone(self, batch):
        seen = expose_wrongly(batch)
        for i in (2, 7):
            alone = expose_wrongly({key: value[i : i + 1] for key, value in batch.items()})
            torch.testing.assert_close(alone.restored[0], seen.restored[i])
        other = expose_wrongly(batch | {"index": batch["index"] + 8})
        assert not torch.allclose(other.restored[7], seen.restored[7], atol=1e-3)


def test_validation_knows_a_head_that_changes_nothing(batch):
    network = RECIPES.get("tone").network()
    scores = validate(network, [batch])
    assert scores["toned"] == scores["exposed"] < 40
    assert scores["harm"] == 60
    assert scores["error"] > 0.05


@pytest.mark.slow
def test_a_few_steps_teach_it_exposure(batch):
    torch.manual_seed(0)
    network = RECIPES.get("tone").network()
    objective = ToneObjective(network, copy.deepcopy(network))
    optimizer = torch.optim.AdamW(network.parameters(), 3e-3)
    before = validate(network, [batch])
    for _ in range(60):
        sum(objective(batch, 0.0).values()).backward()
        optimizer.step()
        optimizer.zero_grad()
    after = validate(network, [batch])
    assert after["toned"] > before["toned"] + 1
    assert after["error"] < 0.8 * before["error"]


def test_every_parameter_learns(batch):
    network = RECIPES.get("tone").network()
    torch.nn.init.normal_(network.head[-1].weight, std=0.1)
    terms = ToneObjective(network, network)(batch, 0.0)
    assert set(terms) == {"luminance", "mean"}
    sum(terms.values()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name
