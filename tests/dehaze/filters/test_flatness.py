import numpy as np
import pytest
import torch
from scipy import ndimage

from dehaze.filters.flatness import (
    flat_cell_mean,
    flat_mean,
    flatness,
    grow_flat_regions,
    local_deviation,
    local_maximum,
    local_mean,
    raise_to_typical,
)

THRESHOLDS = 0.003, 0.008


def flat_regions(image, near=3, typical=None):
    deviates = local_deviation(image, near)
    return flatness(deviates if typical is None else raise_to_typical(deviates, typical), near, *THRESHOLDS)


@pytest.fixture
def photograph():
    """A photograph [1,3,96,192] in [0,1] with an flat, slightly noisy sky to the left and leaves to the right."""
    noise = torch.rand(1, 3, 96, 192, generator=torch.Generator().manual_seed(0)) - 0.5
    return (0.6 + noise * torch.where(torch.arange(192) < 96, 0.004, 0.4)).clamp(0, 1)


@pytest.mark.parametrize(("shape", "radius"), [((20, 31), 3), ((5, 4), 6), ((1, 1), 2)])
def test_mean_equals_scipy(shape, radius):
    x = torch.rand(1, 1, *shape)

    def summed(image):
        return ndimage.convolve(image.numpy(), np.ones([2 * radius + 1] * 2), mode="constant")

    expected = summed(x[0, 0]) / summed(torch.ones(shape))
    np.testing.assert_allclose(local_mean(x, radius)[0, 0], expected, atol=1e-6)


@pytest.mark.parametrize(("shape", "radius"), [((20, 31), 1), ((5, 4), 4), ((1, 1), 2)])
def test_greatest_equals_scipy(shape, radius):
    x = torch.randn(1, 1, *shape)
    expected = ndimage.maximum_filter(x[0, 0].numpy(), 2 * radius + 1, mode="constant", cval=-np.inf)
    assert np.array_equal(local_maximum(x, radius)[0, 0], expected)


@pytest.mark.parametrize("near", [3, 12])
def test_sky_is_even_and_leaves_are_not(photograph, near):
    flat = flat_regions(photograph, near)
    assert flat.shape == (1, 1, 96, 192)
    assert flat[..., : 96 - 3 * near].min() > 0.98
    assert flat[..., 96 + 3 * near :].max() < 0.01


def test_one_channel_with_something_to_see_is_enough(photograph):
    sky = photograph[..., :80].clone()
    assert flat_regions(sky).min() > 0.99
    sky[:, 2] = photograph[:, 2, :, 96:176]
    assert flat_regions(sky).max() < 0.01


def test_noise_of_known_variance_is_not_something_to_see(photograph):
    noise = 0.01 * torch.randn(photograph.shape, generator=torch.Generator().manual_seed(1))
    plain, without = (local_deviation(photograph + noise, 3, noise=variance) for variance in (0.0, 1e-4))
    assert plain[..., :80].min() > 0.008
    assert without[..., :80].mean() < 0.5 * plain[..., :80].mean()
    torch.testing.assert_close(without[..., 110:], plain[..., 110:], atol=0, rtol=0.01)


def test_what_dense_haze_leaves_to_see_is_not_even(photograph):
    """At a twentieth of their contrast leaves are nearly as flat as a sky; raise_to_typical with one, they are not."""
    hazy = 0.7 + 0.05 * (photograph - 0.6)
    assert flat_regions(hazy)[..., 104:].mean() > 0.3
    flat = flat_regions(hazy, typical=0.05)
    assert flat[..., 104:].max() < 0.01
    assert flat[..., :88].min() > 0.99
    torch.testing.assert_close(  # and a photograph that shows enough is not judged otherwise
        flat_regions(photograph, typical=0.05), flat_regions(photograph)
    )


def test_a_slope_is_even():
    slope = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    assert flat_regions(slope)[..., 10:-10].min() == 1
    assert slope.unfold(-1, 7, 1).std(-1).max() > 3 * THRESHOLDS[1]


@pytest.mark.parametrize("average", [lambda x, flat: flat_mean(x, flat, 8), lambda x, flat: flat_cell_mean(x, flat, 8)])
def test_only_what_is_even_has_a_part_in_its_mean(photograph, average):
    flat = flat_regions(photograph)
    slope = torch.linspace(0, 1, 192).expand(1, 2, 96, 192)
    torch.testing.assert_close(average(slope, flat)[..., 24:72], slope[..., 24:72], atol=0.03, rtol=0)
    other = slope + 5 * (torch.arange(192) > 107)
    torch.testing.assert_close(average(other, flat)[..., :100], average(slope, flat)[..., :100], atol=0.02, rtol=0)


def test_a_sky_grows_up_to_what_has_another_colour(photograph):
    flat = flat_regions(photograph)
    roof = photograph.clone()
    roof[..., 96:] = 0.3
    roof[..., 40:44, 40:44] = 0.605  # a hole in the sky that is not flat, though of its colour
    flat[..., 38:46, 38:46] = 0
    flat[..., 92:] = 0
    sky = grow_flat_regions(roof, flat, 6, 0.01, 0.03)
    assert sky[..., :94].min() > 0.8
    assert sky[..., 97:].max() < 0.01
    assert torch.equal(grow_flat_regions(roof, torch.zeros_like(flat), 6, 0.01, 0.03), torch.zeros_like(flat))


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (13, 7)])
def test_small_images(size):
    x, image = torch.rand(2, 3, *size), torch.full((2, 3, *size), 0.5)
    flat = flat_regions(image, typical=0.03)
    for result in grow_flat_regions(image, flat, 6, 0.01, 0.03), flat_mean(x, flat, 4), flat_cell_mean(x, flat, 16):
        assert result.shape[-2:] == size
        assert result.isfinite().all()
