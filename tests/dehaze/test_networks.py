import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dehaze.networks import NETWORKS
from dehaze.networks.api import API
from dehaze.networks.dcp import DCP, box_filter, guided_coefficients, minimum_filter


@pytest.fixture(params=NETWORKS.names())
def network(request) -> nn.Module:
    torch.manual_seed(0)
    network = NETWORKS.get(request.param)().eval()
    for name, parameter in network.named_parameters():
        if name.startswith("head"):  # an untrained network would return its input
            nn.init.normal_(parameter, std=0.02)
    return network


@torch.inference_mode()
def test_the_smallest_and_odd_multiples_of_the_accepted_size(network):
    step, least = network.multiple_of, network.min_size
    assert least % step == 0
    for height, width in [(least, least), (least + step, least), (least, least + 3 * step)]:
        hazy = torch.rand(1, 3, height, width)
        assert network(hazy).shape == hazy.shape


@torch.inference_mode()
def test_the_output_is_an_image(network):
    restored = network(torch.rand(1, 3, 64, 64))
    assert restored.min() >= 0
    assert restored.max() <= 1
    assert restored.isfinite().all()


@torch.inference_mode()
def test_the_last_stage_is_the_output(network):
    hazy = torch.rand(1, 3, 64, 64)
    assert torch.equal(network.stages(hazy)[-1], network(hazy))


@torch.inference_mode()
def test_images_of_a_batch_do_not_mix(network):
    hazy = torch.rand(3, 3, 64, 80)
    alone = torch.cat([network(image[None]) for image in hazy])
    torch.testing.assert_close(network(hazy), alone, atol=1e-5, rtol=0)


@torch.inference_mode()
def test_black_white_and_constant_images_give_numbers(network):
    for value in (0.0, 0.5, 1.0):
        assert network(torch.full((1, 3, 64, 64), value)).isfinite().all()


@torch.inference_mode()
def test_density_is_within_0_and_1(network):
    if not hasattr(network, "restore_with_density"):
        pytest.skip("this network estimates no density")
    hazy = torch.rand(2, 3, 64, 96)
    restored, density = network.restore_with_density(hazy)
    assert density.shape == (2, 1, 64, 96)
    assert density.min() >= 0
    assert density.max() <= 1
    torch.testing.assert_close(restored.clamp(0, 1), network(hazy))


class TestAPI:
    def test_size(self):
        network = API()
        assert sum(parameter.numel() for parameter in network.parameters()) <= 2_000_000
        with torch.inference_mode(), FlopCounterMode(display=False) as counter:
            network(torch.zeros(1, 3, 256, 256))
        assert counter.get_total_flops() / 2 <= 4e9

    def test_untrained_returns_its_input(self):
        hazy = torch.rand(1, 3, 48, 64)
        torch.testing.assert_close(API()(hazy), hazy)

    def test_every_parameter_learns(self):
        network = API()
        nn.init.normal_(network.head.weight, std=0.02)
        restored, density = network.restore_with_density(torch.rand(2, 3, 64, 64))
        (restored.square().mean() + density.mean()).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name

    def test_maps_can_state_the_scattering_model(self):
        """With K = (1/t − 1)·Id and B = A·(1/t − 1) the affine map inverts I = J·t + A·(1 − t)."""
        clear, t, airlight = torch.rand(1, 3, 32, 32), 0.4, torch.tensor([0.9, 0.8, 0.7])
        hazy = clear * t + airlight[:, None, None] * (1 - t)
        maps = torch.cat([torch.eye(3).flatten() * (1 / t - 1), airlight * (1 / t - 1), torch.zeros(1)])
        restored, density = API.apply_maps(hazy, maps[None, :, None, None].expand(1, 13, 16, 16))
        torch.testing.assert_close(restored, clear, atol=1e-5, rtol=0)
        torch.testing.assert_close(density, torch.full((1, 1, 32, 32), 0.5))


class TestDCP:
    @pytest.mark.parametrize("shape", [(40, 70), (15, 15), (7, 100), (1, 1), (3, 2)])
    def test_minimum_filter_equals_scipy(self, shape):
        x = torch.rand(1, 1, *shape)
        expected = ndimage.minimum_filter(x[0, 0].numpy(), 15, mode="constant", cval=np.inf)
        assert np.array_equal(minimum_filter(x, 15)[0, 0].numpy(), expected)

    @pytest.mark.parametrize("shape", [(40, 70), (9, 9), (3, 100), (1, 1)])
    def test_box_filter_equals_a_plain_mean(self, shape):
        x = np.random.default_rng(0).random(shape)
        expected = [
            [x[max(0, i - 4) : i + 5, max(0, j - 4) : j + 5].mean() for j in range(shape[1])] for i in range(shape[0])
        ]
        np.testing.assert_allclose(box_filter(torch.from_numpy(x), 4), expected, atol=1e-12)

    def test_restoration_equals_the_papers_formulas_in_numpy(self):
        generator = np.random.default_rng(1)
        hazy = ndimage.gaussian_filter(generator.random((60, 90, 3)), (2, 2, 0)) * 2 - 0.5
        hazy = np.clip(hazy, 0, 1) * 0.5 + 0.4

        def mean(x, radius):
            weight = ndimage.uniform_filter(np.ones(x.shape), 2 * radius + 1, mode="constant")
            return ndimage.uniform_filter(x, 2 * radius + 1, mode="constant") / weight

        dark = ndimage.minimum_filter(hazy.min(2), 15, mode="nearest")
        haziest = np.argsort(dark.ravel())[-(dark.size // 1000) :]
        airlight = max(hazy.reshape(-1, 3)[haziest], key=sum)
        transmission = 1 - 0.95 * ndimage.minimum_filter((hazy / airlight).min(2), 15, mode="nearest")
        guide = hazy @ [0.299, 0.587, 0.114]
        mean_guide, mean_t = mean(guide, 60), mean(transmission, 60)
        a = (mean(guide * transmission, 60) - mean_guide * mean_t) / (mean(guide**2, 60) - mean_guide**2 + 1e-3)
        b = mean_t - a * mean_guide
        transmission = np.clip(mean(a, 60) * guide + mean(b, 60), 0.1, 1)
        expected = np.clip((hazy - airlight) / transmission[..., None] + airlight, 0, 1)

        restored = DCP()(torch.from_numpy(hazy).float().permute(2, 0, 1)[None])[0].permute(1, 2, 0)
        np.testing.assert_allclose(restored, expected, atol=2e-4)

    def test_a_large_image_is_estimated_from_a_reduced_one(self, monkeypatch):
        small = torch.rand(1, 3, 30, 40).mul(0.5).add(0.4)
        large = small.repeat_interleave(2, 2).repeat_interleave(2, 3)
        expected = DCP()(small).repeat_interleave(2, 2).repeat_interleave(2, 3)
        monkeypatch.setattr(DCP, "largest_exact", 30 * 40)
        torch.testing.assert_close(DCP()(large), expected, atol=0.02, rtol=0)

    def test_guided_filter_keeps_its_guide_when_epsilon_is_small(self):
        guide = torch.rand(1, 1, 50, 50)
        a, b = guided_coefficients(guide, guide, radius=5, epsilon=1e-9)
        torch.testing.assert_close(a * guide + b, guide, atol=1e-4, rtol=0)
