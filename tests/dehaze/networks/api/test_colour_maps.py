import pytest
import torch
from torch.nn import functional as F

from dehaze.networks.api.colour_maps import DARKER, apply_maps, detail_maps, luminance_maps, times

WEIGHTS = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)


@pytest.fixture
def hazy():
    return torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def maps():
    return 0.2 * torch.randn(2, 25, 8, 16, generator=torch.Generator().manual_seed(1))


def test_maps_can_state_the_scattering_model():
    """With K = (1/t − 1)·Id and B = (A − ½)·(1/t − 1), for dark and bright, they invert I = J·t + A·(1 − t)."""
    clear, t, airlight = torch.rand(1, 3, 32, 32), 0.4, torch.tensor([0.9, 0.8, 0.7])
    hazy = clear * t + airlight[:, None, None] * (1 - t)
    rows = torch.cat([torch.eye(3) * (1 / t - 1), (airlight[:, None] - 0.5) * (1 / t - 1)], 1).flatten()
    maps = torch.cat([rows, rows, torch.zeros(1)])[None, :, None, None].expand(1, 25, 8, 8)
    restored, density = apply_maps(hazy, maps)
    torch.testing.assert_close(restored, clear, atol=1e-5, rtol=0)
    torch.testing.assert_close(density, torch.full((1, 1, 32, 32), 0.5))


def test_dark_and_bright_pixels_have_maps_of_their_own():
    """B alone, 0.1 for dark pixels and 0.3 for bright ones, mixed by the least of a pixel's three values."""
    hazy = torch.tensor([[0.0, 0.5, 0.9], [0.5, 0.5, 0.5], [1.0, 1.0, 1.0]]).T.reshape(1, 3, 3, 1)
    maps = torch.zeros(1, 25, 1, 1)
    maps[:, [3, 7, 11]], maps[:, [15, 19, 23]] = 0.1, 0.3
    restored, _ = apply_maps(hazy, maps)
    subtracted = (hazy - restored)[0, :, :, 0]
    torch.testing.assert_close(subtracted, torch.tensor([0.1, 0.2, 0.3]).expand(3, 3))


@pytest.mark.parametrize("size", [(8, 16), (32, 64), (24, 64), (30, 50), (5, 64), (8, 9)])
def test_maps_are_brought_up_bilinearly_to_any_size(maps, size):
    """As all of them are at once by torch, which is slower; maps of the size of the image are left as they are."""
    hazy = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    larger = F.interpolate(maps, size=size, mode="bilinear", align_corners=False)
    for result, expected in zip(apply_maps(hazy, maps), apply_maps(hazy, larger), strict=True):
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


def test_applying_maps_has_gradients():
    generator = torch.Generator().manual_seed(0)
    hazy, maps = (torch.rand(1, *size, dtype=torch.float64, generator=generator) for size in ((3, 8, 6), (25, 2, 3)))
    assert torch.autograd.gradcheck(apply_maps, (hazy.requires_grad_(), maps.requires_grad_()))


def test_gains_become_part_of_the_maps(hazy, maps):
    gains = 0.5 + torch.rand(2, 3)
    restored, density = apply_maps(hazy, maps)
    multiplied, same = apply_maps(hazy, times(maps, gains))
    torch.testing.assert_close(multiplied, restored * gains[..., None, None], atol=1e-5, rtol=0)
    assert torch.equal(density, same)


def test_luminance_maps_change_luminance_as_much_and_colours_not_at_all(hazy, maps):
    affine, density = maps.split((24, 1), 1)
    change = apply_maps(hazy, maps)[0] - hazy
    grey = apply_maps(hazy, torch.cat([luminance_maps(affine), density], 1))[0] - hazy
    torch.testing.assert_close(grey, (change * WEIGHTS).sum(1, keepdim=True).expand_as(grey), atol=1e-5, rtol=0)


def test_detail_maps_put_a_scene_in_place_of_the_smooth_image_and_amplify_the_rest_in_luminance(hazy):
    smooth, scene = torch.rand(2, 2, 3, 32, 64)
    gain = 1 + torch.rand(2, 1, 32, 64)
    affine = detail_maps(smooth, scene, gain)
    restored, _ = apply_maps(hazy, torch.cat([affine, affine[:, :1]], 1))
    difference = hazy - smooth
    grey = (difference * WEIGHTS).sum(1, keepdim=True)
    torch.testing.assert_close(restored, scene + gain * grey + difference - grey, atol=1e-5, rtol=0)


def sharpened(hazy, amount):
    """By the 26th map, the others being those of no change."""
    return apply_maps(hazy, torch.cat([torch.zeros(2, 25, 8, 16), amount], 1))[0]


class TestSharpening:
    @pytest.mark.parametrize("size", [(32, 64), (24, 64), (30, 50), (8, 64)])
    def test_is_an_unsharp_mask_in_luminance_with_less_for_what_is_darker(self, size):
        """As made of whole images, the mean about a pixel being that of a small copy brought up bilinearly."""
        generator = torch.Generator().manual_seed(0)
        hazy, amount = torch.rand(2, 3, *size, generator=generator), torch.rand(2, 1, 8, 16, generator=generator)
        grey = (hazy * WEIGHTS).sum(1, keepdim=True)
        copy = F.adaptive_avg_pool2d(grey, (8, 16))
        mean, times = (F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in (copy, amount))
        brighter, darker = (grey - mean).clamp_min(0), (grey - mean).clamp_max(0)
        expected = hazy + times * (brighter + DARKER * darker)
        torch.testing.assert_close(sharpened(hazy, amount), expected, atol=1e-5, rtol=0)

    def test_by_nothing_is_the_image_itself(self, hazy):
        assert torch.equal(sharpened(hazy, torch.zeros(2, 1, 8, 16)), hazy)

    def test_by_one_map_more_comes_before_the_others(self, hazy, maps):
        amount = torch.rand(2, 1, 8, 16, generator=torch.Generator().manual_seed(2))
        expected = apply_maps(sharpened(hazy, amount), maps)
        for result, other in zip(apply_maps(hazy, torch.cat([maps, amount], 1)), expected, strict=True):
            torch.testing.assert_close(result, other)
