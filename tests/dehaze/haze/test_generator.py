import json

import numpy as np
import pytest
import torch
from PIL import Image
from typer.testing import CliRunner

from dehaze import list_models
from dehaze.cli import app
from dehaze.errors import WeightsError
from dehaze.haze import scatter
from dehaze.haze.generator import (
    GeneratorConfig,
    HazeGenerator,
    hybrid_density,
    load_generator,
)
from dehaze.haze.photo import draw_airlight, draw_ground_density, haze_versions, scale_to_mean
from dehaze.hub import save_weights, shipped

TINY = GeneratorConfig((8, 8, 8), (8, 8, 8))


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def tiny() -> HazeGenerator:
    torch.manual_seed(0)
    generator = HazeGenerator(TINY).eval()
    torch.nn.init.normal_(generator.haze_head.weight, std=0.2)
    return generator


@pytest.fixture(scope="module")
def trained() -> HazeGenerator:
    return load_generator()


def images(count: int, seed: int = 0, side: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, side, side, generator=seeded(seed))


class TestHybridDensity:
    def test_alpha_goes_from_the_hazy_to_the_clear_density(self):
        clear, hazy = images(2, 1)[:, :1], images(2, 2)[:, :1]
        torch.testing.assert_close(hybrid_density(clear, hazy, 0.0, seeded(0), nonuniform=0), hazy)
        torch.testing.assert_close(hybrid_density(clear, hazy, 1.0, seeded(0), nonuniform=0), clear)
        mixed = hybrid_density(clear, hazy, torch.tensor([0.25, 1.0]), seeded(0), nonuniform=0)
        torch.testing.assert_close(mixed[0], 0.25 * clear[0] + 0.75 * hazy[0])
        torch.testing.assert_close(mixed[1], clear[1])

    def test_noise_multiplies_by_half_to_one_and_a_half_and_differs_between_samples(self):
        even = torch.full((2, 1, 96, 96), 0.5)
        noisy = hybrid_density(even, even, 0.5, seeded(0))
        assert noisy.min() >= 0.25
        assert noisy.max() <= 0.75
        assert noisy.std() > 0.03
        assert not torch.equal(noisy[0], noisy[1])
        half = hybrid_density(even, even, 0.5, seeded(0), 0.5)
        torch.testing.assert_close(half - 0.5, (noisy - 0.5) / 2)

    def test_stays_in_range_and_repeats_with_its_seed(self):
        dense = torch.full((1, 1, 96, 96), 0.9)
        density = hybrid_density(dense, dense, 0.5, seeded(3))
        assert density.max() == 1
        assert torch.equal(density, hybrid_density(dense, dense, 0.5, seeded(3)))


class TestGenerator:
    def test_size_and_cost_are_within_bounds(self):
        from torch.utils.flop_counter import FlopCounterMode

        generator = HazeGenerator()
        assert sum(p.numel() for n, p in generator.named_parameters() if n.split(".")[0] in ENCODER) <= 400_000
        assert sum(p.numel() for n, p in generator.named_parameters() if n.split(".")[0] not in ENCODER) <= 500_000
        with torch.no_grad(), FlopCounterMode(display=False) as counter:
            generator.decode(images(1, side=256), images(1, side=256)[:, :1])
        assert counter.get_total_flops() / 2 <= 0.6e9

    def test_shapes_and_ranges(self, tiny):
        hazy, density = tiny.rehaze(images(2), images(2, 1), seeded(0))
        assert hazy.shape == (2, 3, 64, 64)
        assert density.shape == (2, 1, 64, 64)
        for tensor in (hazy, density):
            assert tensor.min() >= 0
            assert tensor.max() <= 1
        assert tiny.encode(images(2)[..., :48]).shape == (2, 1, 64, 48)

    def test_rehaze_repeats_with_its_seed(self, tiny):
        first, again, other = (tiny.rehaze(images(2), images(2, 1), seeded(s))[0] for s in (0, 0, 1))
        assert torch.equal(first, again)
        assert not torch.equal(first, other)

    def test_rehaze_takes_the_colour_of_the_haze_over(self, trained):
        scene, clear = images(2), images(1, 1).expand(2, -1, -1, -1)
        airlight = torch.tensor([[0.9, 0.8, 0.6], [0.6, 0.8, 0.9]])  # warm, cool
        with torch.no_grad():
            hazy, _ = trained.rehaze(clear, scatter(scene, 0.2, airlight[:, :, None, None]), seeded(0))
        warmth = hazy[:, 0].mean((1, 2)) - hazy[:, 2].mean((1, 2))
        assert warmth[0] > warmth[1] + 0.03

    def test_density_0_leaves_the_photograph_as_it_is(self, tiny):
        clear = images(2)
        assert torch.equal(tiny.decode(clear, torch.zeros(2, 1, 64, 64)), clear)

    def test_an_untrained_decoder_obeys_the_scattering_model(self):
        clear, density, airlight = images(2), images(2, 1)[:, :1], torch.rand(2, 3, generator=seeded(2))
        expected = scatter(clear, 1 - density, airlight[:, :, None, None])
        torch.testing.assert_close(HazeGenerator(TINY).decode(clear, density, airlight), expected)


ENCODER = {"encoder", "density_head", "airlight_head"}


class TestPhoto:
    def test_airlights_are_in_range_and_differ(self):
        rng = seeded(0)
        airlight = torch.cat([draw_airlight(rng) for _ in range(50)])
        assert airlight.shape == (50, 3)
        assert airlight.min() >= 0.2
        assert airlight.max() <= 1
        assert airlight.mean(1).std() > 0.05
        assert (airlight[:, 0] - airlight[:, 2]).abs().max() > 0.05  # some have a colour

    def test_mean_density_is_as_asked(self):
        density = images(1)[:, :1]
        for mean in (0.1, 0.5, 0.9):
            scaled = scale_to_mean(density, mean)
            assert scaled.mean() == pytest.approx(mean, abs=1e-3)
            # the order of the pixels stays
            assert (scaled.flatten()[density.flatten().argsort()].diff() >= 0).all()

    def test_the_ground_is_hazier_towards_the_horizon(self):
        density = draw_ground_density(64, 48, seeded(0))
        assert density.shape == (1, 1, 64, 48)
        assert density.min() >= 0.01
        assert density.max() < 1
        assert (density[0, 0, :, 0].diff() <= 0).all()
        assert density[0, 0, 0, 0] > density[0, 0, -1, 0] + 0.2

    def test_versions_have_the_size_of_the_photograph_and_differ(self, tiny):
        clear = torch.rand(1, 3, 70, 101, generator=seeded(0))
        versions = list(haze_versions(tiny, clear, seeded(0), 2, density=0.4, nonuniform=0))
        assert all(version.hazy.shape == clear.shape for version in versions)
        assert all(version.density.mean() == pytest.approx(0.4, abs=0.01) for version in versions)
        assert not torch.equal(versions[0].hazy, versions[1].hazy)


class TestShipped:
    """The weights that ship do what their card says."""

    def test_is_no_dehazing_model(self):
        assert shipped("ahg")
        assert "ahg" not in list_models()

    def test_denser_haze_has_a_higher_density(self, trained):
        clear = torch.rand(1, 3, 8, 8, generator=seeded(0))
        clear = torch.nn.functional.interpolate(clear, size=128, mode="bilinear")
        means = [
            trained.encode(scatter(clear, torch.full((1, 1, 128, 128), t), torch.full((3, 1, 1), 0.8))).mean().item()
            for t in (0.9, 0.6, 0.3)
        ]
        assert means == sorted(means)
        assert means[2] - means[0] > 0.3

    def test_haze_is_transferred(self, trained):
        clear = torch.nn.functional.interpolate(images(1, side=8), size=128, mode="bilinear")
        left = torch.zeros(1, 1, 128, 128)
        left[..., :64] = 0.8
        hazy = trained.decode(clear, left)
        assert (hazy - clear)[..., 72:].abs().max() < 0.02
        torch.testing.assert_close(hazy[..., :56].std(), 0.2 * clear[..., :56].std(), rtol=0.5, atol=0.02)
        density = trained.encode(hazy)
        assert density[..., :48].mean() > density[..., 80:].mean() + 0.3


class TestLoading:
    def test_a_folder_round_trip(self, tiny, tmp_path):
        save_weights(tiny, tmp_path)
        loaded = load_generator(tmp_path)
        assert loaded.config == TINY
        assert torch.equal(loaded.encode(images(1)), tiny.encode(images(1)))

    def test_weights_of_another_network_are_refused(self, tmp_path):
        save_weights(HazeGenerator(TINY), tmp_path)
        (tmp_path / "config.json").write_text(json.dumps({"encoder_widths": [8, 8, 16], "decoder_widths": [8, 8, 8]}))
        with pytest.raises(WeightsError, match="does not fit the model 'ahg'"):
            load_generator(tmp_path)


class TestCommand:
    @pytest.fixture
    def run(self, tiny, tmp_path, monkeypatch):
        save_weights(tiny, tmp_path / "weights")
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("COLUMNS", "200")
        pixels = np.random.default_rng(0).integers(0, 256, (40, 70, 3), dtype=np.uint8)
        Image.fromarray(pixels).save("clear.jpg")
        Image.fromarray(pixels[::-1] // 4 + 150).save("hazy.png")
        return lambda *options: CliRunner().invoke(app, ["haze", *options, "--weights", "weights"])

    def test_writes_versions_with_their_densities(self, run, tmp_path):
        result = run("clear.jpg", "--output", "out", "--count", "2", "--density", "0.5", "--nonuniform", "0")
        assert result.exit_code == 0, result.output
        assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
            "clear_haze1.png",
            "clear_haze1_density.png",
            "clear_haze2.png",
            "clear_haze2_density.png",
        ]
        density = Image.open(tmp_path / "out" / "clear_haze1_density.png")
        assert (density.mode, density.size) == ("L", (70, 40))
        assert np.array(density).mean() / 255 == pytest.approx(0.5, abs=0.02)

    def test_the_same_seed_gives_the_same_haze_and_a_real_one_another(self, run, tmp_path):
        def hazed(*options: str) -> bytes:
            assert run("clear.jpg", "--output", "out", *options).exit_code == 0
            return (tmp_path / "out" / "clear_haze1.png").read_bytes()

        first = hazed("--seed", "1")
        assert hazed("--seed", "1") == first
        assert hazed("--seed", "2") != first
        assert hazed("--seed", "1", "--real", "hazy.png") != first

    def test_a_missing_photograph_is_one_line(self, run):
        result = run("clear.jpg", "--output", "out", "--real", "gone.jpg")
        assert result.exit_code == 1
        assert "gone.jpg does not exist" in result.stderr
