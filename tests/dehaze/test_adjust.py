import math

import pytest
import torch
from torch.nn import functional as F

from dehaze.adjust import (
    SHADOW_FLOOR,
    Adjustments,
    added_share,
    apply_change,
    cast_gains,
    check_strength,
    find_change,
    finish,
    flatness,
    of_look,
    shadow_share,
)

NONE = Adjustments()


def uniform(*values):
    """An image [1,3,16,16] of one colour."""
    return torch.tensor(values).view(1, 3, 1, 1).expand(1, 3, 16, 16).clone()


def hazed(scene, airlight, density):
    return scene + density * (airlight - scene)


@pytest.fixture
def scene():
    return torch.rand(1, 3, 48, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def density():
    return torch.linspace(0.1, 0.8, 64).expand(1, 1, 48, 64)


def adjusted(hazy, restored, density, adjustments=NONE, strength=1.0):
    return apply_change(hazy, restored, find_change(hazy, restored, density, adjustments, strength))


class TestStrength:
    @pytest.mark.parametrize("strength", [0.0, 0.4, 1.0, 1.5])
    def test_from_0_on_it_goes_from_the_input_along_the_removal(self, scene, density, strength):
        hazy = hazed(scene, 0.9, density)
        expected = hazy + strength * (scene - hazy)
        torch.testing.assert_close(adjusted(hazy, scene, density, strength=strength), expected)

    @pytest.mark.parametrize("strength", [-0.3, -1.0])
    def test_below_0_it_adds_haze_of_the_same_airlight(self, scene, density, strength):
        """The transmission t becomes t^(1 − strength), as over a path that is so much longer."""
        hazy = hazed(scene, 0.9, density)
        expected = hazed(scene, 0.9, 1 - (1 - density) ** (1 - strength))
        torch.testing.assert_close(adjusted(hazy, scene, density, strength=strength), expected)

    def test_without_a_density_it_goes_against_the_removal(self, scene):
        hazy = 0.5 + 0.5 * scene
        torch.testing.assert_close(adjusted(hazy, scene, None, strength=-0.5), hazy + 0.5 * (hazy - scene))

    def test_no_haze_and_nothing_but_haze_give_numbers(self):
        for density in (0.0, 1.0):
            share = added_share(uniform(0.5, 0.5, 0.5), torch.full((1, 1, 16, 16), density), 1.0)
            assert share.isfinite().all()
            assert 0 <= share.min() <= share.max() <= 1

    @pytest.mark.parametrize("wrong", [-1.01, 1.51, math.nan, math.inf])
    def test_limits_are_told(self, wrong):
        with pytest.raises(ValueError, match=r"between -1 \(more haze\)"):
            check_strength(wrong)


class TestAdjustments:
    @pytest.mark.parametrize("wrong", [-0.1, 1.1, math.nan])
    def test_are_shares(self, wrong):
        with pytest.raises(ValueError, match="it must lie between 0"):
            Adjustments(skies=wrong)

    def test_none_changes_nothing(self, scene, density):
        hazy = hazed(scene, 0.9, density)
        torch.testing.assert_close(adjusted(hazy, scene, density), scene)

    def test_looks_have_names(self):
        own = Adjustments(skies=0.5)
        assert of_look("faithful", own) == own
        assert of_look("photo", own).skies == 0.5
        with pytest.raises(ValueError, match="choose photo or faithful"):
            of_look("film", own)

    def test_a_change_found_on_a_small_copy_fits_the_photograph(self, density):
        scene = F.interpolate(
            torch.rand(1, 3, 6, 8, generator=torch.Generator().manual_seed(0)), (96, 128), mode="area"
        )
        density = F.interpolate(density, (96, 128), mode="bilinear")
        hazy = hazed(scene, 0.9, density)
        small = [F.interpolate(x, (48, 64), mode="area") for x in (hazy, scene, density)]
        change = find_change(*small, Adjustments(shadows=1), 1.0)
        whole = find_change(hazy, scene, density, Adjustments(shadows=1), 1.0)
        difference = apply_change(hazy, scene, change) - apply_change(hazy, scene, whole)
        assert difference.abs().mean() < 0.01


class TestSkies:
    @pytest.fixture
    def photograph(self):
        """An even, slightly noisy sky to the left and leaves to the right, [1,3,96,192]."""
        noise = torch.rand(1, 3, 96, 192, generator=torch.Generator().manual_seed(0)) - 0.5
        return (0.7 + noise * torch.where(torch.arange(192) < 96, 0.004, 0.5)).clamp(0, 1)

    def test_are_as_smooth_as_they_were_taken_and_leaves_stay(self, photograph):
        blotches = 0.1 * (torch.rand(1, 3, 12, 24, generator=torch.Generator().manual_seed(1)) - 0.5)
        restored = 1.5 * photograph - 0.4 + F.interpolate(blotches, (96, 192), mode="bilinear")
        result = adjusted(photograph, restored, torch.full((1, 1, 96, 192), 0.4), Adjustments(skies=1))
        sky, leaves = (..., slice(8, -8), slice(8, 80)), (..., slice(120, None))
        assert result[sky].std() < 0.4 * restored[sky].std()
        assert result[sky].mean().item() == pytest.approx(restored[sky].mean().item(), abs=0.01)
        torch.testing.assert_close(result[leaves], restored[leaves], atol=0.01, rtol=0)

    def test_flatness_is_1_in_a_sky_and_0_in_leaves(self, photograph):
        flat = flatness(photograph)
        assert flat[..., :80].min() > 0.98
        assert flat[..., 110:].max() < 0.01


class TestShadows:
    def test_keep_the_darkest_pixels_at_the_floor(self):
        hazy = uniform(0.1, 0.1, 0.1)
        share = shadow_share(hazy, uniform(0.01, 0.01, 0.01))
        assert (hazy + share * (0.01 - hazy)).mean().item() == pytest.approx(SHADOW_FLOOR, abs=1e-4)

    def test_what_is_bright_is_removed_in_full(self):
        result = adjusted(uniform(0.6, 0.6, 0.6), uniform(0.3, 0.3, 0.3), None, Adjustments(shadows=1))
        torch.testing.assert_close(result, uniform(0.3, 0.3, 0.3))

    def test_never_weaken_the_removal_further_than_a_limit(self):
        hazy = uniform(0.03, 0.03, 0.03)
        assert shadow_share(hazy, uniform(0.0, 0.0, 0.0)).min().item() == pytest.approx(0.6)

    def test_what_was_not_darkened_stays(self):
        hazy = uniform(0.2, 0.2, 0.2)
        torch.testing.assert_close(adjusted(hazy, hazy, None, Adjustments(shadows=1)), hazy)


class TestColour:
    def test_takes_the_colour_of_a_dust_storm_out(self):
        dust = torch.tensor([0.8, 0.6, 0.4]).view(1, 3, 1, 1)
        generator = torch.Generator().manual_seed(0)
        grey = 0.3 + 0.4 * torch.rand(1, 1, 32, 32, generator=generator)
        tinted = grey * dust / dust.mean()
        density = torch.full((1, 1, 32, 32), 0.6)
        hazy = hazed(tinted, dust, density)
        result = cast_gains(hazy, tinted, density)[..., None, None] * tinted
        spread, before = (x.mean((2, 3)).amax() - x.mean((2, 3)).amin() for x in (result, tinted))
        assert spread < 0.4 * before
        luminance = [(x.mean((2, 3)) * torch.tensor([0.299, 0.587, 0.114])).sum().item() for x in (result, tinted)]
        assert luminance[0] == pytest.approx(luminance[1], rel=1e-4)

    def test_leaves_a_scene_of_many_colours_in_warm_haze_alone(self):
        """As a sunset is, in which something is blue: what is taken out, all of it has."""
        dust, density = torch.tensor([0.8, 0.6, 0.4]).view(1, 3, 1, 1), torch.full((1, 1, 32, 32), 0.6)
        colours = torch.rand(1, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 0.8 + 0.1
        gains = cast_gains(hazed(colours, dust, density), colours, density)
        torch.testing.assert_close(gains, torch.ones(1, 3))

    def test_grey_haze_has_no_cast(self, scene, density):
        gains = cast_gains(hazed(scene, 0.8, density), scene, density)
        torch.testing.assert_close(gains, torch.ones(1, 3), atol=0.02, rtol=0)


def test_a_result_is_clipped_in_place_when_it_is_finished():
    image = torch.tensor([-0.5, 0.5, 1.5]).view(1, 3, 1, 1)
    result = finish(image, None)
    assert result.flatten().tolist() == [0, 0.5, 1]
    assert result.data_ptr() == image.data_ptr()
