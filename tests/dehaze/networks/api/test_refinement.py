import math

import pytest
import torch

from dehaze.filters.flatness import local_mean
from dehaze.networks.api.colour_maps import ColourMaps, apply_maps
from dehaze.networks.api.refinement import (
    MAX_REMOVAL_CHANGE,
    MAX_SHARPENING,
    MIN_REMOVAL_CHANGE,
    SHADOW_FLOOR,
    darkest,
    refine,
    removal_change,
)


def soft_maps(gain, offset, density, size=(64, 96)):
    """Maps of J = I + gain·(I − ½) − offset, grey and the same everywhere, and this density."""
    affine = gain * torch.eye(3).flatten(), torch.full((3,), float(offset))
    logit = torch.tensor([math.log(density / (1 - density))])
    fields = (*affine, *affine, logit, torch.zeros(1))
    return ColourMaps(*(field.view(1, -1, 1, 1).expand(1, -1, *size).contiguous() for field in fields))


def together(*maps):
    return ColourMaps(*map(torch.cat, zip(*maps, strict=True)))


@pytest.fixture
def leaves():
    """A hazy photograph of leaves [1,3,64,96], the darkest of them at 0.5 nearly everywhere."""
    return 0.5 + 0.2 * torch.rand(1, 3, 64, 96, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def half_sky(leaves):
    """The same with an even sky to the left, with a little noise in it."""
    noise = torch.randn(1, 3, 64, 96, generator=torch.Generator().manual_seed(1))
    return torch.where(torch.arange(96) < 48, 0.7 + 0.002 * noise, leaves)


class TestRemovalChange:
    def test_is_nothing_where_nothing_was_removed(self, leaves):
        assert torch.equal(removal_change(leaves, leaves), torch.zeros(1, 1, 64, 96))

    @pytest.mark.parametrize(
        ("removed", "expected"),
        [
            (0.65, (0.6 - SHADOW_FLOOR) / 0.65 - 1),
            (2.0, MIN_REMOVAL_CHANGE),
            (0.4, (0.6 - SHADOW_FLOOR) / 0.4 - 1),
            (0.1, MAX_REMOVAL_CHANGE),
        ],
        ids=["black", "black, at the limit", "left", "left, at the limit"],
    )
    def test_the_darkest_is_brought_to_where_it_should_be_as_far_as_may_be(self, removed, expected):
        even = torch.full((1, 3, 32, 32), 0.6)
        torch.testing.assert_close(removal_change(even, even - removed), torch.full((1, 1, 32, 32), expected))

    def test_the_darkest_nearby_decides(self):
        hazy = torch.full((1, 3, 33, 33), 0.9)
        everywhere = removal_change(hazy, hazy - 0.6)
        hazy[..., 12:21, 12:21] = 0.5
        share = removal_change(hazy, hazy - 0.6)  # black in the middle alone
        assert share[..., 16, 16] < 0
        assert share[..., 0, 0] == everywhere[..., 0, 0] > 0
        hazy[:, 0, 12:21, 12:21] = 0.9  # red is not black
        torch.testing.assert_close(removal_change(hazy, hazy - 0.6), everywhere)


class TestRefine:
    def test_untrained_maps_of_a_clear_photograph_stay(self, leaves):
        maps = soft_maps(0, 0, 0.01)
        torch.testing.assert_close(tuple(refine(leaves, maps)), tuple(maps))

    def test_more_is_removed_where_haze_is_dense_and_something_dark_is_missing(self, leaves):
        darkest_left = {}
        for density in 0.3, 0.9:
            maps = soft_maps(0.5, 0.2, density)
            before, after = (apply_maps(leaves, x)[0] for x in (maps, refine(leaves, maps)))
            darkest_left[density] = darkest(after).mean() / darkest(before).mean()
        assert darkest_left[0.3] == pytest.approx(1, abs=0.01)
        assert darkest_left[0.9] < 0.75

    def test_tints_do_not_grow_with_what_is_removed(self, leaves):
        maps = soft_maps(0.5, 0.1, 0.9)
        for offset in maps.dark_offset, maps.bright_offset:
            offset[:, 2] -= 0.01  # a little blue
        restored = apply_maps(leaves, refine(leaves, maps))[0].mean((0, 2, 3))
        assert restored[2] - restored[0] < 0.02

    def test_shadows_do_not_turn_black(self, leaves):
        leaves = leaves[..., :8, :12].repeat_interleave(8, 2).repeat_interleave(8, 3)
        maps = soft_maps(1.0, 0.75, 0.4)
        before, after = (apply_maps(leaves, x)[0].amax(1) for x in (maps, refine(leaves, maps)))
        assert (before < 0.01).float().mean() > 0.05
        assert (after < 0.01).float().mean() < 0.3 * (before < 0.01).float().mean()

    def test_blotches_go_from_the_sky_and_stay_among_leaves(self, half_sky):
        maps = soft_maps(0.5, 0.0, 0.4)
        fields = 0.1 * torch.rand(1, 1, 8, 12, generator=torch.Generator().manual_seed(2))
        for offset in maps.dark_offset, maps.bright_offset:
            offset += fields.repeat_interleave(8, 2).repeat_interleave(8, 3)
        before, after = (apply_maps(half_sky, x)[0] for x in (maps, refine(half_sky, maps)))
        assert after[..., :40].std() < 0.4 * before[..., :40].std()
        torch.testing.assert_close(after[..., 56:], before[..., 56:], atol=1e-4, rtol=0)

    @pytest.mark.parametrize(("density", "gain"), [(0.01, 1 / 0.99), (0.4, 1 / 0.6), (0.9, 4)])
    def test_structure_of_the_sky_grows_as_the_density_says_up_to_a_limit_and_steps_of_jpeg_do_not(self, density, gain):
        """Both deviate by the same; clouds do so within the copy's pixels of 4×4, too, and steps of 8×8 do not."""
        rows, columns = torch.arange(256)[:, None], torch.arange(384)
        clouds = (rows / 2.5).sin() * (columns / 2.5).sin()
        steps = (rows // 8 * 37 % 5 + columns // 8 * 23 % 7).float()
        for pattern, least, most in (clouds, 0.45, 0.75), (steps - steps.mean(), -0.05, 0.05):
            sky = (0.7 + 0.003 * pattern / pattern.std()).expand(1, 3, 256, 384)
            restored, _ = apply_maps(sky, refine(sky, soft_maps(0.0, 0.0, density)))
            more = (restored.std() / sky.std()).item() - 1
            assert least < more / (gain - 1) < most

    @pytest.mark.parametrize("noise", [0.001, 0.004, 0.01, 0.04])
    def test_noise_of_dense_fog_is_not_amplified(self, noise):
        """At four times the size of the maps; it is even, however much noise there is, and nothing is strengthened."""
        generator = torch.Generator().manual_seed(0)
        fog = 0.6 + noise * torch.randn(1, 1, 256, 384, generator=generator).expand(1, 3, 256, 384)
        restored, _ = apply_maps(fog, refine(fog, soft_maps(3.0, 0.2, 0.9)))
        copy = torch.nn.functional.avg_pool2d(restored, 4)
        grain = restored - copy.repeat_interleave(4, 2).repeat_interleave(4, 3)
        assert grain.std().item() == pytest.approx(noise, rel=0.1)
        assert copy.mean().item() == pytest.approx(0.6 + 3 * 0.1 - 0.2, abs=0.01)

    def test_leaves_in_dense_haze_are_sharpened_and_the_sky_is_not(self):
        leaves = 0.4 + 0.3 * torch.rand(1, 3, 256, 384, generator=torch.Generator().manual_seed(0))
        leaves = local_mean(leaves, 1)  # larger than a pixel
        half_sky = torch.where(torch.arange(384) < 192, 0.7, leaves)
        amounts = {d: refine(half_sky, soft_maps(0.5, 0.1, d)).sharpening[:, 0] for d in (0.3, 0.9)}
        assert not amounts[0.3].any()
        assert amounts[0.9][..., :40].max() < 0.01
        assert 0.3 * MAX_SHARPENING < amounts[0.9][..., 56:].min() <= amounts[0.9].max() < MAX_SHARPENING
        hard = 0.5 + 3 * (leaves - 0.55)
        assert refine(hard, soft_maps(0.5, 0.1, 0.9)).sharpening.mean() < 0.6 * amounts[0.9][..., 56:].mean()

    def test_only_the_size_of_the_maps_counts_where_a_photograph_has_no_detail(self, half_sky):
        maps = soft_maps(1.0, 0.2, 0.6)
        larger = half_sky.repeat_interleave(4, 2).repeat_interleave(4, 3)
        unsharpened = (
            refine(photograph, maps)._replace(sharpening=maps.sharpening) for photograph in (larger, half_sky)
        )
        results = (apply_maps(half_sky, found)[0] for found in unsharpened)
        torch.testing.assert_close(*results, atol=2e-3, rtol=0)

    def test_images_of_a_batch_do_not_mix(self, leaves, half_sky):
        maps = soft_maps(0.5, 0.1, 0.7), soft_maps(1.0, 0.2, 0.5)
        both = refine(torch.cat([leaves, half_sky]), together(*maps))
        alone = together(refine(leaves, maps[0]), refine(half_sky, maps[1]))
        torch.testing.assert_close(tuple(both), tuple(alone), atol=1e-5, rtol=0)

    @pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
    def test_black_white_and_grey_give_numbers(self, value):
        for size in (8, 8), (13, 7):
            for maps in soft_maps(2.0, 0.5, 0.99, size), soft_maps(0.0, 0.0, 0.01, size):
                assert all(x.isfinite().all() for x in refine(torch.full((1, 3, *size), value), maps))
