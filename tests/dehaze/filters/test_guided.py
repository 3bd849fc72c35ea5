import numpy as np
import pytest
import torch
from torch.nn import functional as F

from dehaze.filters.guided import box_filter, follow, guided_coefficients


@pytest.mark.parametrize("shape", [(40, 70), (9, 9), (3, 100), (1, 1)])
def test_box_filter_equals_a_plain_mean(shape):
    x = np.random.default_rng(0).random(shape)
    expected = [
        [x[max(0, i - 4) : i + 5, max(0, j - 4) : j + 5].mean() for j in range(shape[1])] for i in range(shape[0])
    ]
    np.testing.assert_allclose(box_filter(torch.from_numpy(x), 4), expected, atol=1e-12)


def test_the_filter_keeps_its_guide_when_epsilon_is_small():
    guide = torch.rand(1, 1, 50, 50)
    a, b = guided_coefficients(guide, guide, radius=5, epsilon=1e-9)
    torch.testing.assert_close(a * guide + b, guide, atol=1e-4, rtol=0)


def test_a_factor_and_an_offset_of_each_channel_are_followed():
    generator = torch.Generator().manual_seed(0)
    image = torch.rand(2, 3, 96, 128, generator=generator)
    copy = F.interpolate(image, size=(40, 50), mode="area")
    factor, offset = (torch.rand(2, 3, 1, 1, generator=generator) for _ in range(2))
    followed = follow(image, copy, factor * copy + offset)
    torch.testing.assert_close(followed, factor * image + offset, atol=3e-3, rtol=0)


def test_what_a_copy_became_is_learned_from():
    image, restored = torch.rand(1, 3, 64, 64), torch.rand(1, 3, 32, 32, requires_grad=True)
    follow(image, F.avg_pool2d(image, 2), restored).square().sum().backward()
    assert restored.grad.isfinite().all()
    assert (restored.grad != 0).all()
