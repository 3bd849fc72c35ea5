import numpy as np
import pytest
import torch
from scipy import ndimage

from dehaze.filters.flatness import (
    flat_cell_mean,
    flatness,
    local_deviation,
    local_maximum,
    local_mean,
)

THRESHOLDS = 0.003, 0.008


def flat_regions(image, near=3):
    return flatness(local_deviation(image, near), near, *THRESHOLDS)


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


def test_a_slope_is_even():
    slope = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    assert flat_regions(slope)[..., 10:-10].min() == 1
    assert slope.unfold(-1, 7, 1).std(-1).max() > 3 * THRESHOLDS[1]


def test_only_what_is_even_has_a_part_in_its_mean(photograph):
    flat = flat_regions(photograph)
    slope = torch.linspace(0, 1, 192).expand(1, 2, 96, 192)
    torch.testing.assert_close(flat_cell_mean(slope, flat, 8)[..., 24:72], slope[..., 24:72], atol=0.03, rtol=0)
    other = slope + 5 * (torch.arange(192) > 107)
    torch.testing.assert_close(
        flat_cell_mean(other, flat, 8)[..., :100], flat_cell_mean(slope, flat, 8)[..., :100], atol=0.02, rtol=0
    )


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (13, 7)])
def test_small_images(size):
    x, image = torch.rand(2, 3, *size), torch.full((2, 3, *size), 0.5)
    result = flat_cell_mean(x, flat_regions(image), 16)
    assert result.shape[-2:] == size
    assert result.isfinite().all()
