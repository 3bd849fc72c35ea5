"""PSNR, SSIM and CIEDE2000 against scikit-image, over random and degenerate pairs."""

from math import inf

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import deltaE_ciede2000, rgb2lab
from skimage.metrics import peak_signal_noise_ratio, structural_similarity

from bench.metrics import MetricError, reference


def image(tensor):
    return tensor[0].double().permute(1, 2, 0).numpy()


def expected_ssim(restored, clear):
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False}
    return structural_similarity(image(restored), image(clear), channel_axis=2, data_range=1, **options)


def expected_ciede2000(restored, clear):
    return deltaE_ciede2000(rgb2lab(image(restored)), rgb2lab(image(clear))).mean()


def pair(kind, height, width, seed):
    generator = torch.Generator().manual_seed(seed)
    one, other = torch.rand(2, 1, 3, height, width, generator=generator)
    match kind:
        case "near":
            other = (one + 0.02 * other).clamp(0, 1)
        case "bytes":
            one, other = (one * 255).round() / 255, (other * 255).round() / 255
        case "grey":
            one, other = one[:, :1].expand(-1, 3, -1, -1), other[:, :1].expand(-1, 3, -1, -1)
        case "grey and colour":
            one = one[:, :1].expand(-1, 3, -1, -1)
        case "constant":
            one, other = torch.full_like(one, 0.25), torch.full_like(one, 0.75)
        case "black and white":
            one, other = torch.zeros_like(one), torch.ones_like(one)
    return one, other


kinds = st.sampled_from(["random", "near", "bytes", "grey", "grey and colour", "constant", "black and white"])


@settings(max_examples=40, deadline=None)
@given(kind=kinds, height=st.integers(11, 70), width=st.integers(11, 70), seed=st.integers(0, 999))
def test_equal_to_scikit_image(kind, height, width, seed):
    check(*pair(kind, height, width, seed))


def one_pixel_off(image):
    other = image.clone()
    other[..., 5, 7] = 1 - other[..., 5, 7]
    return other


def noise(height, width, seed=0):
    return torch.rand(1, 3, height, width, generator=torch.Generator().manual_seed(seed))


def plain(red, green, blue, height=16, width=20):
    return torch.tensor([red, green, blue])[None, :, None, None].expand(1, 3, height, width)


DEGENERATE = {
    "the same constant": (plain(0.25, 0.25, 0.25), plain(0.25, 0.25, 0.25)),
    "two constants": (plain(0.25, 0.5, 0.75), plain(0.75, 0.5, 0.25)),
    "black and white": (plain(0, 0, 0), plain(1, 1, 1)),
    "both black": (plain(0, 0, 0), plain(0, 0, 0)),
    "opposite primaries": (plain(1, 0, 0), plain(0, 1, 1)),
    "identical": (noise(20, 30), noise(20, 30)),
    "one pixel different": (noise(20, 30), one_pixel_off(noise(20, 30))),
    "as small as the window": (noise(11, 11), noise(11, 11, seed=1)),
    "very wide": (noise(11, 3000), noise(11, 3000, seed=1)),
    "one pixel": (noise(1, 1), noise(1, 1, seed=1)),
}


@pytest.mark.parametrize("seed", range(50))
def test_equal_to_scikit_image_on_random_pairs(seed):
    height, width = np.random.default_rng(seed).integers(11, 90, 2)
    check(*pair(("random", "near", "bytes")[seed % 3], height, width, seed))


@pytest.mark.parametrize("name", DEGENERATE)
@pytest.mark.filterwarnings("ignore:divide by zero")  # scikit-image's PSNR of identical images
def test_equal_to_scikit_image_on_degenerate_pairs(name):
    check(*DEGENERATE[name])


def check(one, other):
    psnr = peak_signal_noise_ratio(image(other), image(one), data_range=1)
    assert reference.psnr(one, other).item() == pytest.approx(psnr, abs=1e-9)
    assert reference.ciede2000(one, other).item() == pytest.approx(expected_ciede2000(one, other), abs=1e-9)
    try:
        ssim = expected_ssim(one, other)
    except ValueError:  # scikit-image refuses images smaller than the window
        with pytest.raises(MetricError, match="11×11"):
            reference.ssim(one, other)
    else:
        assert reference.ssim(one, other).item() == pytest.approx(ssim, abs=1e-9)


@pytest.mark.parametrize("size", [(1, 7), (10, 3)])
def test_tiny_images(size):
    check(*pair("random", *size, seed=0))


@pytest.mark.parametrize("kind", ["random", "constant", "black and white"])
def test_identical_images(kind):
    one, _ = pair(kind, 20, 30, seed=1)
    assert reference.psnr(one, one).item() == inf
    assert reference.ssim(one, one).item() == pytest.approx(1, abs=1e-12)
    assert reference.ciede2000(one, one).item() == 0


def test_strips_join_without_a_seam(monkeypatch):
    one, other = pair("near", 61, 47, seed=2)
    whole = [metric(one, other).item() for metric in (reference.psnr, reference.ssim, reference.ciede2000)]
    monkeypatch.setattr(reference, "STRIP_PIXELS", 47 * 8)
    strips = [metric(one, other).item() for metric in (reference.psnr, reference.ssim, reference.ciede2000)]
    assert strips == pytest.approx(whole, rel=1e-12)


def test_float64_accumulation_in_low_precision():
    """A mean over a million half-precision values, which half precision itself cannot add up."""
    one = torch.full((1, 3, 600, 600), 0.5, dtype=torch.float16)
    other = one + 2**-10
    assert reference.psnr(one, other).item() == pytest.approx(20 * np.log10(2**10), abs=1e-9)


@pytest.mark.parametrize(
    ("lab1", "lab2", "expected"),
    [  # Sharma, Wu and Dalal 2005, table 1: pairs where hue means and differences jump
        ((50, 2.6772, -79.7751), (50, 0, -82.7485), 2.0425),
        ((50, 0, 0), (50, -1, 2), 2.3669),
        ((50, 2.49, -0.001), (50, -2.49, 0.0009), 7.1792),
        ((50, 2.49, -0.001), (50, -2.49, 0.0011), 7.2195),
        ((50, -0.001, 2.49), (50, 0.0009, -2.49), 4.8045),
        ((50, -0.001, 2.49), (50, 0.0011, -2.49), 4.7461),
        ((50, 2.5, 0), (50, 0, -2.5), 4.3065),
        ((50, 2.5, 0), (73, 25, -18), 27.1492),
    ],
)
def test_published_colour_differences(lab1, lab2, expected):
    one, other = (torch.tensor(lab, dtype=torch.float64) for lab in (lab1, lab2))
    for a, b in ((one, other), (other, one)):
        assert reference._colour_difference(a, b).item() == pytest.approx(expected, abs=5e-5)
