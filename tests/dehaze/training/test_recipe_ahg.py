from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image
from scipy import stats
from torch.nn import functional as F

from dehaze.errors import DehazeError
from dehaze.haze import scatter
from dehaze.haze.generator import GeneratorConfig, HazeGenerator
from dehaze.training.pairs import PairedCrops, find_pairs
from dehaze.training.recipes import RECIPES
from dehaze.training.recipes.ahg import (
    Critic,
    GeneratorObjective,
    airlight_between,
    density_loss,
    hinge,
    spearman,
    validate,
)

TINY = GeneratorConfig((8, 8, 8), (8, 8, 8))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def batch() -> dict[str, torch.Tensor]:
    clear = torch.rand(4, 3, 32, 32, generator=seeded(0))
    coarse = torch.rand(4, 1, 2, 2, generator=seeded(1))
    density = F.interpolate(coarse, size=32, mode="bilinear")
    airlight = 0.5 + 0.5 * torch.rand(4, 3, 1, 1, generator=seeded(2))
    hazy = scatter(clear, 1 - density, airlight)
    real = torch.rand(4, 3, 32, 32, generator=seeded(3))
    return {"clear": clear, "hazy": hazy, "density": density, "real": real, "airlight": airlight.flatten(1)}


@pytest.fixture
def objective() -> GeneratorObjective:
    torch.manual_seed(0)
    network = HazeGenerator(TINY)
    return GeneratorObjective(network, network)


def gradients(module: torch.nn.Module) -> bool:
    return any(p.grad is not None and p.grad.abs().sum() > 0 for p in module.parameters())


class TestObjective:
    def test_the_critic_learns_from_its_own_term_alone(self, objective, batch):
        terms = objective(batch, 0.5)
        (sum(terms.values()) - terms["critic"]).backward(retain_graph=True)
        assert gradients(objective.network)
        assert not gradients(objective.critic)
        objective.zero_grad()
        terms["critic"].backward()
        assert gradients(objective.critic)
        assert not gradients(objective.network)

    def test_pairs_without_density_go_without_its_supervision(self, objective, batch):
        unknown = torch.full_like(batch["density"], torch.nan)
        terms = objective({"hazy": batch["hazy"], "clear": batch["clear"], "density": unknown}, 0.0)
        assert set(terms) == set(objective(batch, 0.0)) and terms["density"] == 0
        sum(terms.values()).backward()
        assert gradients(objective.network.encoder)
        assert all(parameter.grad is None or parameter.grad.isfinite().all() for parameter in objective.parameters())

    @pytest.mark.slow
    def test_terms_fall_when_trained(self, objective, batch):
        optimizer = torch.optim.AdamW(objective.network.parameters(), 3e-3)

        def supervised() -> torch.Tensor:
            terms = objective(batch, 0.0)
            return terms["reconstruction"] + terms["identity"] + terms["density"]

        before = supervised().item()
        for _ in range(30):
            optimizer.zero_grad()
            supervised().backward()
            optimizer.step()
        assert supervised().item() < 0.6 * before

    def test_the_critic_sees_no_fine_grain(self):
        critic = Critic().eval()
        image, grain = torch.full((1, 3, 64, 64), 0.5), torch.ones(1, 1, 64, 64)
        grain[..., ::2] = -1
        torch.testing.assert_close(critic(image + 0.2 * grain), critic(image))
        assert not torch.allclose(critic(image + 0.2), critic(image), atol=1e-5)


def test_density_loss_counts_the_mean_once_and_the_shape_twice():
    truth = torch.tensor([0.2, 0.4]).view(1, 1, 1, 2)
    assert density_loss(truth + 0.1, truth) == pytest.approx(0.1)
    assert density_loss(truth.flip(-1), truth) == pytest.approx(0.4)


def test_hinge_is_0_beyond_the_margins():
    assert hinge(torch.tensor([1.0, 3.0]), torch.tensor([-1.0, -2.0])) == 0
    assert hinge(torch.tensor([0.5, 1.5]), torch.tensor([-0.5, 0.5])) == pytest.approx(0.25 + 1.0)


def test_airlight_is_found_again(batch):
    airlight, weight = airlight_between(batch["hazy"], batch["clear"], batch["density"])
    torch.testing.assert_close(airlight, batch["airlight"])
    assert (weight > 0.9).all()
    none, weight = airlight_between(batch["clear"], batch["clear"], torch.zeros_like(batch["density"]))
    assert (weight == 0).all()
    assert none.isfinite().all()


def test_spearman_agrees_with_scipy():
    a, b = torch.rand(3, 1, 9, 7, generator=seeded(0)), torch.rand(3, 1, 9, 7, generator=seeded(1))
    b[1] = a[1].exp()
    expected = [stats.spearmanr(x.flatten(), y.flatten()).statistic for x, y in zip(a, b, strict=True)]
    np.testing.assert_allclose(spearman(a, b), expected, atol=1e-12)


def test_validation_knows_a_perfect_encoder(batch):
    class Perfect(HazeGenerator):
        def encode(self, image: torch.Tensor) -> torch.Tensor:
            return batch["density"] if image is batch["hazy"] else torch.zeros_like(batch["density"])

    scores = validate(Perfect(TINY), [batch])
    assert scores["density_error"] == 0
    assert scores["density_rank"] == pytest.approx(1)
    assert scores["haze_psnr"] > 50  # an untrained decoder is the scattering model
    assert scores["clear_psnr"] == 60


def test_the_recipe_trains_a_generator():
    recipe = replace(RECIPES.get("ahg"), steps=1)
    network = recipe.network()
    assert isinstance(network, HazeGenerator)
    assert isinstance(recipe.objective(network, network).critic, Critic)


class TestPairs:
    @pytest.fixture
    def folder(self, tmp_path):
        for name in ("hazy", "clear"):
            (tmp_path / name).mkdir()
        for i in range(12):
            pixels = np.random.default_rng(i).integers(0, 256, (6, 8, 3), dtype=np.uint8)
            clear = Image.fromarray(pixels).resize((64, 48), Image.Resampling.BILINEAR)
            clear.save(tmp_path / "clear" / f"{i:02}.png")
            clear.point(lambda value: value // 2 + 100).save(tmp_path / "hazy" / f"{i:02}.png")
        return tmp_path

    def test_the_split_is_apart(self, folder):
        training, validation = find_pairs(folder)
        assert (len(training), len(validation)) == (11, 1)
        assert not set(training) & set(validation)

    def test_crops_stay_aligned_and_repeat(self, folder):
        crops = PairedCrops(find_pairs(folder)[0], size=32, seed=0, start=3, stop=20)
        assert len(crops) == 17
        for i in range(len(crops)):
            item = crops[i]
            torch.testing.assert_close(item["hazy"], item["clear"] / 2 + 100 / 255, atol=0.02, rtol=0)
            assert torch.equal(item["hazy"], crops[i]["hazy"])
        again = PairedCrops(find_pairs(folder)[0], size=32, seed=0, start=0, stop=20)
        assert torch.equal(again[3]["clear"], crops[0]["clear"])

    def test_what_is_missing_is_named(self, folder):
        (folder / "clear" / "05.png").unlink()
        with pytest.raises(DehazeError, match=r"05\.png has no clear image"):
            find_pairs(folder)
        Image.new("RGB", (64, 50)).save(folder / "clear" / "05.jpg")
        with pytest.raises(DehazeError, match="Give aligned pairs"):
            find_pairs(folder)
        with pytest.raises(DehazeError, match="Give the folder above"):
            find_pairs(folder / "hazy")
