import pytest
import torch
from torch.nn import functional as F

from dehaze.networks.api.colour_maps import (
    DARK_DETAIL_SHARE,
    ColourMaps,
    apply_maps,
    detail_maps,
    in_luminance,
    multiply_result,
)

WEIGHTS = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)


@pytest.fixture
def hazy():
    return torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def maps():
    channels = 0.2 * torch.randn(2, 25, 8, 16, generator=torch.Generator().manual_seed(1))
    return ColourMaps.from_channels(*channels.split((24, 1), 1))


def constant(dark_matrix=0, dark_offset=0, bright_matrix=0, bright_offset=0, size=(8, 8)):
    """Maps that are the same everywhere, the density being ½."""
    parts = zip((dark_matrix, dark_offset, bright_matrix, bright_offset, 0, 0), (9, 3, 9, 3, 1, 1), strict=True)
    fields = (torch.as_tensor(part).float().flatten().expand(channels) for part, channels in parts)
    return ColourMaps(*(field[None, :, None, None].expand(1, -1, *size) for field in fields))


def test_the_channels_of_the_head_are_rows_of_matrix_and_offset():
    rows = torch.arange(24.0).view(1, 24, 1, 1)
    maps = ColourMaps.from_channels(rows, torch.full((1, 1, 1, 1), 7.0))
    assert maps.dark_matrix.flatten().tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert maps.dark_offset.flatten().tolist() == [3, 7, 11]
    assert maps.bright_matrix.flatten().tolist() == [12, 13, 14, 16, 17, 18, 20, 21, 22]
    assert maps.bright_offset.flatten().tolist() == [15, 19, 23]
    assert (maps.density_logit.item(), maps.sharpening.item()) == (7, 0)


def test_maps_can_state_the_scattering_model():
    """With K = (1/t − 1)·Id and B = (A − ½)·(1/t − 1), for dark and bright, they invert I = J·t + A·(1 − t)."""
    clear, t, airlight = torch.rand(1, 3, 32, 32), 0.4, torch.tensor([0.9, 0.8, 0.7])
    hazy = clear * t + airlight[:, None, None] * (1 - t)
    matrix, offset = torch.eye(3) * (1 / t - 1), (airlight - 0.5) * (1 / t - 1)
    restored, density = apply_maps(hazy, constant(matrix, offset, matrix, offset))
    torch.testing.assert_close(restored, clear, atol=1e-5, rtol=0)
    torch.testing.assert_close(density, torch.full((1, 1, 32, 32), 0.5))


def test_dark_and_bright_pixels_have_maps_of_their_own():
    """B alone, 0.1 for dark pixels and 0.3 for bright ones, mixed by the least of a pixel's three values."""
    hazy = torch.tensor([[0.0, 0.5, 0.9], [0.5, 0.5, 0.5], [1.0, 1.0, 1.0]]).T.reshape(1, 3, 3, 1)
    restored, _ = apply_maps(hazy, constant(dark_offset=0.1, bright_offset=0.3, size=(1, 1)))
    subtracted = (hazy - restored)[0, :, :, 0]
    torch.testing.assert_close(subtracted, torch.tensor([0.1, 0.2, 0.3]).expand(3, 3))


@pytest.mark.parametrize("size", [(8, 16), (32, 64), (24, 64), (30, 50), (5, 64), (8, 9)])
def test_maps_are_brought_up_bilinearly_to_any_size(maps, size):
    """As all of them are at once by torch, which is slower; maps of the size of the image are left as they are."""
    hazy = torch.rand(2, 3, *size, generator=torch.Generator().manual_seed(0))
    larger = ColourMaps(*(F.interpolate(x, size=size, mode="bilinear", align_corners=False) for x in maps))
    for result, expected in zip(apply_maps(hazy, maps), apply_maps(hazy, larger), strict=True):
        torch.testing.assert_close(result, expected, atol=1e-5, rtol=0)


@pytest.mark.slow
def test_applying_maps_has_gradients():
    generator = torch.Generator().manual_seed(0)
    hazy, affine, logit = (
        torch.rand(1, *size, dtype=torch.float64, generator=generator).requires_grad_()
        for size in ((3, 8, 6), (24, 2, 3), (1, 2, 3))
    )
    assert torch.autograd.gradcheck(
        lambda hazy, *channels: apply_maps(hazy, ColourMaps.from_channels(*channels)), (hazy, affine, logit)
    )


def test_gains_become_part_of_the_maps(hazy, maps):
    gains = 0.5 + torch.rand(2, 3)
    restored, density = apply_maps(hazy, maps)
    multiplied, same = apply_maps(hazy, multiply_result(maps, gains))
    torch.testing.assert_close(multiplied, restored * gains[..., None, None], atol=1e-5, rtol=0)
    assert torch.equal(density, same)


def test_luminance_maps_change_luminance_as_much_and_colours_not_at_all(hazy, maps):
    change = apply_maps(hazy, maps)[0] - hazy
    grey = apply_maps(hazy, maps.map_colours(in_luminance))[0] - hazy
    torch.testing.assert_close(grey, (change * WEIGHTS).sum(1, keepdim=True).expand_as(grey), atol=1e-5, rtol=0)


def test_detail_maps_put_a_scene_in_place_of_the_smooth_image_and_amplify_the_rest_in_luminance(hazy):
    smooth, scene = torch.rand(2, 2, 3, 32, 64)
    gain = 1 + torch.rand(2, 1, 32, 64)
    affine, nothing = detail_maps(smooth, scene, gain), torch.zeros_like(gain)
    restored, _ = apply_maps(hazy, ColourMaps(*affine, *affine, nothing, nothing))
    difference = hazy - smooth
    grey = (difference * WEIGHTS).sum(1, keepdim=True)
    torch.testing.assert_close(restored, scene + gain * grey + difference - grey, atol=1e-5, rtol=0)


def sharpened(hazy, gain):
    """By the map of sharpening, the others being those of no change."""
    return apply_maps(hazy, constant(size=(8, 16))._replace(sharpening=gain))[0]


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
        expected = hazy + times * (brighter + DARK_DETAIL_SHARE * darker)
        torch.testing.assert_close(sharpened(hazy, amount), expected, atol=1e-5, rtol=0)

    def test_by_nothing_is_the_image_itself(self, hazy):
        assert torch.equal(sharpened(hazy, torch.zeros(2, 1, 8, 16)), hazy)

    def test_comes_before_the_other_maps(self, hazy, maps):
        amount = torch.rand(2, 1, 8, 16, generator=torch.Generator().manual_seed(2))
        expected = apply_maps(sharpened(hazy, amount), maps)
        for result, other in zip(apply_maps(hazy, maps._replace(sharpening=amount)), expected, strict=True):
            torch.testing.assert_close(result, other)
