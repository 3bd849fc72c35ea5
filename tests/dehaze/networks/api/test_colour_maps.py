import pytest
import torch
from torch.nn import functional as F

from dehaze.adjust import Change
from dehaze.networks.api.colour_maps import ColourMaps, apply_maps, change_maps


@pytest.fixture
def hazy():
    return torch.rand(2, 3, 32, 64, generator=torch.Generator().manual_seed(0))


@pytest.fixture
def maps():
    channels = 0.2 * torch.randn(2, 25, 8, 16, generator=torch.Generator().manual_seed(1))
    return ColourMaps.from_channels(*channels.split((24, 1), 1))


def constant(dark_matrix=0, dark_offset=0, bright_matrix=0, bright_offset=0, size=(8, 8)):
    """Maps that are the same everywhere, the density being ½."""
    parts = zip((dark_matrix, dark_offset, bright_matrix, bright_offset, 0), (9, 3, 9, 3, 1), strict=True)
    fields = (torch.as_tensor(part).float().flatten().expand(channels) for part, channels in parts)
    return ColourMaps(*(field[None, :, None, None].expand(1, -1, *size) for field in fields))


def test_the_channels_of_the_head_are_rows_of_matrix_and_offset():
    rows = torch.arange(24.0).view(1, 24, 1, 1)
    maps = ColourMaps.from_channels(rows, torch.full((1, 1, 1, 1), 7.0))
    assert maps.dark_matrix.flatten().tolist() == [0, 1, 2, 4, 5, 6, 8, 9, 10]
    assert maps.dark_offset.flatten().tolist() == [3, 7, 11]
    assert maps.bright_matrix.flatten().tolist() == [12, 13, 14, 16, 17, 18, 20, 21, 22]
    assert maps.bright_offset.flatten().tolist() == [15, 19, 23]
    assert maps.density_logit.item() == 7


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


def test_a_change_of_the_result_becomes_part_of_the_maps(hazy, maps):
    """At the size of the maps, and with a gain that is the same everywhere at any size."""
    generator = torch.Generator().manual_seed(1)
    small = F.adaptive_avg_pool2d(hazy, maps.density_logit.shape[-2:])
    share, offset = (torch.rand(2, channels, *small.shape[-2:], generator=generator) for channels in (1, 3))
    gains = 0.5 + torch.rand(2, 3, generator=generator)
    restored, density = apply_maps(small, maps)
    changed, same = apply_maps(small, change_maps(maps, Change(share, offset, gains, None)))
    expected = gains[..., None, None] * (small + share * (restored - small) + offset)
    torch.testing.assert_close(changed, expected, atol=1e-5, rtol=0)
    assert torch.equal(density, same)
    plain = Change(torch.ones_like(share), torch.zeros_like(offset), gains, None)
    multiplied, _ = apply_maps(hazy, change_maps(maps, plain))
    torch.testing.assert_close(multiplied, apply_maps(hazy, maps)[0] * gains[..., None, None], atol=1e-5, rtol=0)
