import math

import pytest
import torch

from dehaze.filters.colour import MAX_LIFT, MIN_MEAN, balance

YELLOW, GREY, BLUE = [0.8, 0.7, 0.5], [0.7, 0.7, 0.7], [0.5, 0.65, 0.8]


def photograph(airlight, density, scene=(0.45, 0.45, 0.45)):
    """A scene [1,3,32,32] lit by its airlight, in haze and without it, the scene in white light, and the density."""
    generator = torch.Generator().manual_seed(0)
    texture = 0.3 * (torch.rand(1, 1, 32, 32, generator=generator) - 0.5)
    neutral = torch.tensor(scene).view(1, 3, 1, 1) + texture
    airlight = torch.tensor(airlight).view(1, 3, 1, 1)
    tinted, density = neutral * airlight / airlight.mean(), torch.full((1, 1, 32, 32), density)
    return torch.lerp(tinted, airlight, density), tinted, neutral, density


def saturation(image):
    means = image.mean((0, 2, 3))
    return ((means.max() - means.min()) / means.max()).item()


@pytest.mark.parametrize(("airlight", "density"), [(YELLOW, 0.6), (YELLOW, 0.45), ([0.5, 0.75, 0.7], 0.5), (BLUE, 0.8)])
def test_the_colour_of_haze_goes_and_the_luminance_stays(airlight, density):
    hazy, tinted, _, density = photograph(airlight, density)
    gains = balance(hazy, tinted, density)
    result = tinted * gains[..., None, None]
    assert saturation(tinted) > 0.3
    assert saturation(result) < 0.06
    weights = torch.tensor([0.299, 0.587, 0.114]).view(3, 1, 1)
    assert (result * weights).sum(1).mean().item() == pytest.approx((tinted * weights).sum(1).mean().item(), rel=5e-3)


@pytest.mark.parametrize(
    ("airlight", "density"), [(YELLOW, 0.15), (GREY, 0.6), (BLUE, 0.4)], ids=["little haze", "grey haze", "blue sky"]
)
def test_other_colours_stay(airlight, density):
    hazy, _, scene, density = photograph(airlight, density, scene=(0.6, 0.4, 0.3))
    torch.testing.assert_close(balance(hazy, scene, density), torch.ones(1, 3), atol=1e-5, rtol=0)


def test_a_neutral_scene_and_one_of_the_opposite_colour_stay():
    hazy, _, neutral, density = photograph(YELLOW, 0.45)
    torch.testing.assert_close(balance(hazy, neutral, density), torch.ones(1, 3), atol=0.02, rtol=0)
    bluish = neutral * torch.tensor([0.8, 0.9, 1.1]).view(3, 1, 1)
    torch.testing.assert_close(balance(hazy, bluish, density), torch.ones(1, 3), atol=1e-5, rtol=0)


@pytest.mark.parametrize("airlight", [YELLOW, GREY, BLUE], ids=["yellow", "grey", "blue"])
def test_in_dense_haze_a_scene_does_not_turn_blue_as_a_whole(airlight):
    hazy, _, bluish, density = photograph(airlight, 0.7, scene=(0.35, 0.42, 0.5))
    result = bluish * balance(hazy, bluish, density)[..., None, None]
    assert saturation(bluish) > 0.25
    assert saturation(result) < 0.06


def test_what_is_too_dark_is_lifted_as_far_as_it_may_be():
    hazy, _, neutral, density = photograph(GREY, 0.7)
    for share, gain in (0.5, MIN_MEAN / (0.5 * neutral.mean().item())), (0.1, MAX_LIFT), (1, 1):
        gains = balance(hazy, share * neutral, density)
        torch.testing.assert_close(gains, torch.full((1, 3), float(gain)), atol=1e-3, rtol=0)
    half = balance(hazy, 0.1 * neutral, torch.full_like(density, 0.3))  # half hazy
    torch.testing.assert_close(half, torch.full((1, 3), math.sqrt(MAX_LIFT)), atol=1e-3, rtol=0)


@pytest.mark.parametrize(("density", "share"), [(0.45, 0.6), (0.56, 0.7), (0.7, 0.8)])
def test_a_dim_photograph_stays_dim_and_the_less_the_denser_its_haze_is(density, share):
    hazy, _, neutral, density = photograph([0.3, 0.3, 0.3], density, scene=(0.3, 0.3, 0.3))
    result = 0.5 * neutral * balance(hazy, 0.5 * neutral, density)[..., None, None]
    assert result.mean().item() == pytest.approx(share * hazy.mean().item(), rel=5e-3)


def test_each_image_of_a_batch_by_itself():
    first, second = photograph(YELLOW, 0.6), photograph(GREY, 0.5)
    hazy, tinted, _, density = (torch.cat(pair) for pair in zip(first, second, strict=True))
    alone = [balance(hazy, tinted, density) for hazy, tinted, _, density in (first, second)]
    torch.testing.assert_close(balance(hazy, tinted, density), torch.cat(alone))


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_black_and_white_give_numbers(value):
    image, density = torch.full((1, 3, 8, 8), value), torch.full((1, 1, 8, 8), value)
    for restored in image, torch.zeros_like(image):
        for gains in balance(image, restored, density), balance(image, restored, 1 - density):
            assert gains.isfinite().all()
            assert gains.min() >= 1 - 1e-6
