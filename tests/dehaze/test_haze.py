import math
from dataclasses import replace

import pytest
import torch
from scipy import ndimage

from dehaze.haze import HazeMixture, HazeRenderer, RendererConfig, brownian_field, perlin_field, scatter, transmission
from dehaze.haze.degradation import add_noise, blur, compress_jpeg
from dehaze.haze.scattering import linear_to_srgb, srgb_to_linear
from dehaze.haze.sky import overcast, sky_mask

PURE = RendererConfig(
    clear_share=0, linear_share=0, gamma_share=0, noise_share=0, jpeg_share=0, perlin_share=0, brownian_share=0
)


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def scene() -> tuple[torch.Tensor, torch.Tensor]:
    clear = torch.rand(3, 48, 64, generator=seeded(0))
    return clear, torch.linspace(1, 0, 48)[:, None].expand(48, 64)


def test_scattering_at_its_limits():
    clear, airlight = torch.rand(3, 4, 4), torch.full((3, 1, 1), 0.8)
    assert torch.equal(scatter(clear, transmission(torch.zeros(1, 4, 4)), airlight), clear)
    torch.testing.assert_close(
        scatter(clear, transmission(torch.full((1, 4, 4), 50.0)), airlight), airlight.expand(3, 4, 4)
    )


def test_srgb_round_trip_and_known_values():
    x = torch.linspace(0, 1, 1001, dtype=torch.float64)
    torch.testing.assert_close(linear_to_srgb(srgb_to_linear(x)), x, atol=1e-6, rtol=0)
    assert srgb_to_linear(torch.tensor(0.5)).item() == pytest.approx(0.21404114, abs=1e-6)  # IEC 61966-2-1


class TestFields:
    def test_perlin_is_around_1_and_repeats_with_its_seed(self):
        field = perlin_field(120, 200, seeded(3), scale=40)
        assert field.shape == (120, 200)
        assert field.min() >= 0.5
        assert field.max() <= 1.5
        assert (field - 1).abs().max() == pytest.approx(0.5, abs=1e-3)
        assert torch.equal(field, perlin_field(120, 200, seeded(3), scale=40))
        assert not torch.equal(field, perlin_field(120, 200, seeded(4), scale=40))

    def test_perlin_keeps_the_mean_over_many_draws(self):
        mean = torch.stack([perlin_field(64, 64, seeded(i), scale=30).mean() for i in range(100)]).mean()
        assert mean == pytest.approx(1, abs=0.03)

    def test_perlin_is_smooth_and_smoother_at_a_larger_scale(self):
        def steepness(scale: float) -> float:
            return perlin_field(128, 128, seeded(5), octaves=1, scale=scale).diff().abs().mean().item()

        assert steepness(60) < steepness(10) / 3
        assert perlin_field(128, 128, seeded(5), octaves=4, scale=64).diff().abs().max() < 0.2

    def test_brownian_covers_0_to_1_and_is_not_uniform(self):
        field = brownian_field(90, 130, seeded(1))
        assert field.shape == (90, 130)
        assert field.min() == 0
        assert field.max() == 1
        assert field.std() > 0.1


class TestRenderer:
    def test_pure_haze_obeys_the_scattering_model(self, scene):
        clear, depth = scene
        for seed in range(10):
            sample = HazeRenderer(PURE).render(clear, depth, seeded(seed))
            torch.testing.assert_close(sample.hazy, scatter(clear, sample.transmission, sample.airlight))
            assert torch.equal(sample.clear, clear)

    def test_exposure_changes_the_scene_and_its_truth_alike(self, scene):
        clear, depth = scene
        renderer = HazeRenderer(replace(PURE, exposure_share=0.5))
        samples = [renderer.render(clear, depth, seeded(seed)) for seed in range(200)]
        gammas = torch.tensor([(sample.clear.log().sum() / clear.log().sum()).item() for sample in samples])
        for sample, gamma in zip(samples, gammas, strict=True):
            torch.testing.assert_close(sample.clear, clear**gamma)
            torch.testing.assert_close(sample.hazy, scatter(sample.clear, sample.transmission, sample.airlight))
        changed = gammas[gammas != 1]
        assert 70 < len(changed) < 130
        assert 0.6 <= changed.min() < 0.7
        assert 1.7 < changed.max() <= 2.0
        # Even in the logarithm: as far from 1 as the range's geometric mean.
        assert changed.log().mean().item() == pytest.approx(math.log(0.6 * 2.0) / 2, abs=0.1)

    def test_haze_blurs_the_scene_and_not_its_truth(self, scene):
        """The more, the denser it is."""
        clear, depth = scene
        sample = HazeRenderer(replace(PURE, blur_share=1, blur=(1.5, 1.5))).render(clear, depth, seeded(3))
        assert torch.equal(sample.clear, clear)
        behind = blur(clear, 1.5, 1 - sample.transmission)
        torch.testing.assert_close(sample.hazy, scatter(behind, sample.transmission, sample.airlight))

    def test_a_mixture_renders_its_kinds_as_often_as_it_says(self, scene):
        clear, depth = scene
        bright = replace(PURE, airlight=(0.9, 0.9), airlight_shift=0, warm_share=0, airlight_map_share=0)
        renderer = HazeRenderer(HazeMixture(((0.75, bright), (0.25, replace(bright, airlight=(0.2, 0.2))))))
        airlights = [renderer.render(clear, depth, seeded(seed)).airlight.mean() for seed in range(200)]
        assert {round(airlight.item(), 4) for airlight in airlights} == {0.2, 0.9}
        assert 30 < sum(airlight < 0.5 for airlight in airlights) < 70

    def test_a_mixture_whose_shares_do_not_add_up_is_refused(self):
        with pytest.raises(ValueError, match=r"sum to 0\.8"):
            HazeMixture(((0.5, RendererConfig()), (0.3, PURE)))

    def test_an_overcast_sky_is_grey_and_as_bright_as_the_airlight(self):
        clear = torch.tensor([0.2, 0.4, 0.9]).view(3, 1, 1).repeat(1, 96, 96)  # blue above, green below
        clear[:, 48:] = torch.tensor([0.2, 0.5, 0.1]).view(3, 1, 1)
        depth = torch.full((96, 96), 0.4).index_fill(0, torch.arange(44), 1.0)  # the sky ends a little too early
        config = replace(PURE, overcast_share=1, warm_share=0, airlight_shift=0, airlight_map_share=0)
        sample = HazeRenderer(config).render(clear, depth, seeded(0))
        torch.testing.assert_close(sample.clear[:, :48], sample.airlight[:, :48])
        assert torch.equal(sample.clear[:, 48:], clear[:, 48:])
        torch.testing.assert_close(sample.hazy, scatter(sample.clear, sample.transmission, sample.airlight))

    def test_haze_grows_with_depth_and_beta(self, scene):
        clear, depth = scene
        config = replace(PURE, ramp_share=0)
        sample = HazeRenderer(config).render(clear, depth, seeded(0))
        assert (sample.transmission[0].diff(dim=0) >= 0).all()  # nearer, so clearer, downwards
        thin = HazeRenderer(replace(config, beta=(0.3, 0.3))).render(clear, depth, seeded(0))
        thick = HazeRenderer(replace(config, beta=(3.0, 3.0))).render(clear, depth, seeded(0))
        assert (thick.transmission <= thin.transmission).all()

    def test_non_uniform_haze_varies_at_one_depth(self, scene):
        clear, _ = scene
        flat = torch.full((48, 64), 0.5)
        for share in ("perlin_share", "brownian_share"):
            sample = HazeRenderer(replace(PURE, **{share: 1.0})).render(clear, flat, seeded(2))
            assert sample.transmission.std() > 0.01, share

    def test_a_clear_sample_is_left_as_it_is(self, scene):
        clear, depth = scene
        sample = HazeRenderer(RendererConfig(clear_share=1)).render(clear, depth, seeded(0))
        assert torch.equal(sample.hazy, clear)
        assert (sample.transmission == 1).all()

    def test_everything_stays_in_range_and_repeats_with_its_seed(self, scene):
        clear, depth = scene
        renderer = HazeRenderer()
        for seed in range(40):
            sample, again = (renderer.render(clear, depth, seeded(seed)) for _ in range(2))
            assert torch.equal(sample.hazy, again.hazy)
            assert sample.hazy.isfinite().all()
            assert sample.hazy.min() >= -1e-6 and sample.hazy.max() <= 1 + 1e-6
            assert sample.transmission.min() > 0 and sample.transmission.max() <= 1

    def test_airlight_is_coloured_at_times_and_grey_at_others(self):
        airlights = torch.stack([HazeRenderer().airlight(16, 16, seeded(i)) for i in range(300)])
        warmth = (airlights[:, 0] - airlights[:, 2]).mean((1, 2))
        assert warmth.max() > 0.1
        assert warmth.min() < -0.1
        assert (warmth.abs() < 0.05).float().mean() > 0.5
        uneven = airlights.amax((2, 3)) - airlights.amin((2, 3)) > 0.02
        assert 0.15 < uneven.any(1).float().mean() < 0.45


class TestSky:
    @pytest.mark.parametrize(
        ("colour", "is_sky"),
        [((0.2, 0.4, 0.9), 1), ((0.8, 0.8, 0.8), 1), ((0.35, 0.4, 0.3), 0), ((0.3, 0.3, 0.3), 0), ((0.9, 0.6, 0.2), 0)],
        ids=["blue", "white", "meadow", "rock", "sand"],
    )
    def test_far_is_sky_where_it_is_blue_or_bright(self, colour, is_sky):
        clear = torch.tensor(colour).view(3, 1, 1).expand(3, 48, 48)
        torch.testing.assert_close(sky_mask(clear, torch.ones(48, 48)), torch.full((1, 48, 48), float(is_sky)))
        assert not sky_mask(clear, torch.full((48, 48), 0.9)).any()

    def test_clouds_keep_a_part_of_the_contrast_and_take_the_mean(self):
        clear = torch.rand(3, 40, 40, generator=seeded(0)) * 0.2 + 0.5
        sky = torch.zeros(1, 40, 40).index_fill(1, torch.arange(20), 1.0)
        covered = overcast(clear, sky, 0.6)
        assert torch.equal(covered[:, 20:], clear[:, 20:])
        assert (covered[:, :20] == covered[:1, :20]).all()
        assert covered[:, :20].mean().item() == pytest.approx(0.6, abs=1e-4)
        contrast = covered[0, :20].std() / clear[:, :20].mean(0).std()
        assert contrast.item() == pytest.approx(0.3, abs=1e-4)

    def test_without_sky_nothing_changes(self):
        clear = torch.rand(3, 8, 8, generator=seeded(1))
        assert torch.equal(overcast(clear, sky_mask(clear, torch.zeros(8, 8)), 0.7), clear)


def test_noise_and_jpeg():
    image = torch.full((3, 64, 64), 0.5)
    assert add_noise(image, 0.05, seeded(0)).std() == pytest.approx(0.05, rel=0.05)
    detailed = torch.rand(3, 64, 64, generator=seeded(1))
    errors = [(compress_jpeg(detailed, quality) - detailed).square().mean().item() for quality in (95, 60, 20)]
    assert errors == sorted(errors)


def test_blur_is_scipys_gaussian_where_its_share_is_1():
    image = torch.rand(3, 40, 52, generator=seeded(0))
    expected = ndimage.gaussian_filter(image.numpy(), (0, 1.3, 1.3), mode="nearest", radius=(0, 4, 4))
    share = (torch.arange(52) >= 26).float().expand(1, 40, 52)
    blurred = blur(image, 1.3, share)
    torch.testing.assert_close(blurred[..., :26], image[..., :26])
    torch.testing.assert_close(blurred[..., 26:], torch.from_numpy(expected)[..., 26:], atol=1e-5, rtol=0)
