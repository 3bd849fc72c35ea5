import pytest
import torch
from skimage.metrics import structural_similarity

from dehaze.training.losses.ssim import ssim


def test_equal_to_scikit_image():
    a = torch.rand(2, 3, 15, 20, generator=torch.Generator().manual_seed(0))
    b = (a + 0.1 * torch.rand(2, 3, 15, 20, generator=torch.Generator().manual_seed(1))).clamp(0, 1)
    options = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "data_range": 1}
    expected = [
        structural_similarity(x.double().numpy(), y.double().numpy(), channel_axis=0, **options)
        for x, y in zip(a, b, strict=True)
    ]
    assert ssim(a, b).tolist() == pytest.approx(expected, abs=1e-5)


def test_precision_around_changes_nothing():
    a, b = torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    with torch.autocast("cpu", torch.bfloat16):
        within = ssim(a, b)
    assert torch.equal(within, ssim(a, b))


def test_gradients_lead_to_the_other_image():
    a, b = torch.rand(2, 1, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    a.requires_grad_()
    (gradient,) = torch.autograd.grad(ssim(a, b).mean(), a)
    assert ((b - a) * gradient).sum() > 0
