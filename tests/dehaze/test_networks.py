import numpy as np
import pytest
import torch
from scipy import ndimage
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from dehaze.density import Haze, instruct
from dehaze.networks import NETWORKS
from dehaze.networks.api.network import API, APIConfig, ResidualBlock, _unshuffle, enlarge_with_soft_borders
from dehaze.networks.base import EstimatesDensity, Network
from dehaze.networks.dcp import DCP, minimum_filter

# Composed names are many and alike: one whose backbone routes patches, one that CLIP instructs, one of any size.
NAMES = [name for name in NETWORKS.names() if ":" not in name] + [
    "progressive:api",
    "progressive:cliphaze_t",
    "progressive:draco",
]


@pytest.fixture(params=NAMES)
def network(request) -> Network:
    torch.manual_seed(0)
    network = NETWORKS.get(request.param)().eval()
    for name, parameter in network.named_parameters():
        if name.startswith("head"):  # an untrained network would return its input
            nn.init.normal_(parameter, std=0.02)
    return network


def clip(hazy: torch.Tensor) -> Haze:
    """Stand in for a CLIP model: each image by itself, the density its blue, the embedding made of its mean."""
    embedding = nn.functional.normalize(hazy.mean((1, 2, 3))[:, None] + torch.linspace(0, 1, 128), dim=1)
    return Haze(hazy[:, 2:], hazy.mean((1, 2, 3)), embedding)


def restore(network: Network, hazy: torch.Tensor) -> torch.Tensor:
    return network(hazy, **instruct(network, clip, hazy))


@torch.inference_mode()
def test_no_other_size_is_accepted(network):
    """The size data claims no more than the network needs, and no less."""
    step, least = network.multiple_of, network.min_size
    for size in {least - step, least + step // 2} - {0, least}:
        if size > 0:
            with pytest.raises((RuntimeError, AssertionError, ValueError)):
                assert restore(network, torch.rand(1, 3, size, least)).shape == (1, 3, size, least)


@pytest.mark.slow
@torch.inference_mode()
def test_the_smallest_and_odd_multiples_of_the_accepted_size(network):
    step, least = network.multiple_of, network.min_size
    assert least % step == 0
    for height, width in [(least, least), (least + step, least), (least, least + 3 * step)]:
        hazy = torch.rand(1, 3, height, width)
        assert restore(network, hazy).shape == hazy.shape


@torch.inference_mode()
def test_the_output_is_an_image(network):
    restored = restore(network, torch.rand(1, 3, 128, 128))
    assert restored.min() >= 0
    assert restored.max() <= 1
    assert restored.isfinite().all()


@pytest.mark.slow
@torch.inference_mode()
def test_the_last_stage_is_the_output(network):
    hazy = torch.rand(1, 3, 128, 128)
    assert torch.equal(network.stages(hazy, **instruct(network, clip, hazy))[-1], restore(network, hazy))


@pytest.mark.slow
@torch.inference_mode()
def test_images_of_a_batch_do_not_mix(network):
    hazy = torch.rand(3, 3, 128, 256)
    alone = torch.cat([restore(network, image[None]) for image in hazy])
    torch.testing.assert_close(restore(network, hazy), alone, atol=1e-5, rtol=0)


@pytest.mark.slow
@torch.inference_mode()
def test_black_white_and_constant_images_give_numbers(network):
    for value in (0.0, 0.5, 1.0):
        assert restore(network, torch.full((1, 3, 128, 128), value)).isfinite().all()


@torch.inference_mode()
def test_density_is_within_0_and_1(network):
    if not isinstance(network, EstimatesDensity):
        pytest.skip("this network estimates no density")
    hazy = torch.rand(2, 3, 64, 128)
    restored, density = network.restore_with_density(hazy)
    assert density.shape == (2, 1, 64, 128)
    assert density.min() >= 0
    assert density.max() <= 1
    torch.testing.assert_close(restored.clamp(0, 1), network(hazy))


@torch.inference_mode()
def multiply_adds(network: nn.Module, hazy: torch.Tensor) -> float:
    with FlopCounterMode(display=False) as counter:
        network(hazy)
    return counter.get_total_flops() / 2


class TestAPI:
    def test_size_with_every_patch_dense(self):
        network = API(APIConfig(importance=False)).eval()
        assert multiply_adds(network, torch.zeros(1, 3, 256, 256)) <= 4e9
        assert sum(parameter.numel() for parameter in API().parameters()) <= 2_000_000

    def test_untrained_returns_its_input(self):
        hazy = torch.rand(1, 3, 64, 128)
        torch.testing.assert_close(API()(hazy), hazy)

    @pytest.mark.parametrize("importance", [True, False])
    def test_every_parameter_learns(self, importance):
        torch.manual_seed(0)
        network = API(APIConfig(importance=importance))
        for parameter in network.parameters():
            if not parameter.any():  # what starts at 0 keeps gradients from what is before it
                nn.init.normal_(parameter, std=0.1)
        restored, density = network.restore_with_density(torch.rand(2, 3, 64, 64))
        (restored.square().mean() + density.mean()).backward()
        for name, parameter in network.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.abs().sum() > 0, name

    @pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
    def test_means_of_channels_in_every_precision(self, dtype):
        block, seen = ResidualBlock(5), []
        block.conv1 = block.conv2 = nn.Identity()
        block.gate = nn.Identity()
        block.gate.register_forward_pre_hook(lambda _, inputs: seen.append(*inputs))
        x = (4 + torch.randn(2, 5, 128, 256)).relu().to(dtype)  # a sum of more than float16 holds
        expected = x.double().mean((2, 3), keepdim=True)
        block(x)
        torch.testing.assert_close(seen[0].double(), expected, atol=0, rtol=1e-2)

    def test_unshuffling_is_torchs_in_channels_last(self):
        x = torch.rand(2, 3, 32, 64)
        result = _unshuffle(x, 4)
        assert torch.equal(result, nn.functional.pixel_unshuffle(x, 4))
        assert result.is_contiguous(memory_format=torch.channels_last)

    @torch.inference_mode()
    def test_maps_of_colours_are_the_mean_of_two_sizes(self):
        hazy = torch.rand(1, 3, 128, 64)
        both = API().eval()
        nn.init.normal_(both.head.weight, std=0.05)
        alone = API(APIConfig(two_sizes=False)).eval()
        alone.load_state_dict(both.state_dict(), strict=True)
        whole, half = alone.maps(hazy), alone.maps(nn.functional.avg_pool2d(hazy, 2))
        *colours, density = both.maps(hazy)
        for found, large, small in zip(colours, whole, half, strict=False):
            enlarged = nn.functional.interpolate(small, scale_factor=2, mode="bilinear")
            torch.testing.assert_close(found, (large + enlarged) / 2)
        torch.testing.assert_close(density, whole.density_logit)
        assert (both.multiple_of, alone.multiple_of) == (64, 32)

    @pytest.mark.slow
    def test_light_haze_costs_less(self):
        network = API().eval()
        hazy = torch.rand(1, 3, 256, 256)
        costs = []
        for threshold in (1.1, network.importance(hazy).median().item(), -0.1):
            network.threshold.fill_(threshold)
            costs.append(multiply_adds(network, hazy))
        assert costs[0] < costs[1] < costs[2] <= 4e9

    def test_a_patch_keeps_its_place_whichever_way_it_takes(self):
        """With both ways doing nothing, routing returns what it is given."""
        network = API().eval()
        nn.init.zeros_(network.light.weight), nn.init.zeros_(network.light.bias)
        for expert in network.experts:
            for layer in (expert.out, expert.mlp[-1]):
                nn.init.zeros_(layer.weight), nn.init.zeros_(layer.bias)
        features, importance = torch.rand(2, 64, 16, 24), torch.rand(2, 1, 2, 3)
        torch.testing.assert_close(network._route(features, importance), features)
        torch.testing.assert_close(network.train()._route(features, importance), features)

    def test_only_important_patches_change_on_the_dense_way(self):
        network = API().eval()
        nn.init.zeros_(network.light.weight), nn.init.zeros_(network.light.bias)
        features, importance = torch.rand(1, 64, 16, 24), torch.tensor([0.9, 0.1, 0.2, 0.3, 0.8, 0.4]).view(1, 1, 2, 3)
        changed = (network._route(features, importance) - features).abs().amax(1)[0]
        changed = changed.view(2, 8, 3, 8).amax((1, 3)) > 0
        assert changed.tolist() == [[True, False, False], [False, True, False]]

    def test_borders_between_the_two_ways_are_enlarge_with_soft_borders(self):
        """Between neighbouring pixels there is never a step, and what is 0 stays 0."""
        mask = torch.tensor([[1, 1, 0], [1, 0, 0], [1, 1, 1]]).view(1, 1, 3, 3).float()
        share = enlarge_with_soft_borders(mask, 8)[0, 0]
        assert share[4, 4] > 0.8 and share[0, 0] == 1 and (share[:8, 16:] == 0).all() and (share[8:16, 8:] == 0).all()
        assert share[2, 0] == share[2, 5]  # towards another patch of 1 nothing fades
        steps = torch.cat([share.diff(dim=0).flatten(), share.diff(dim=1).flatten()])
        assert steps.abs().max() <= 0.25 + 1e-6
        assert (enlarge_with_soft_borders(torch.ones(1, 1, 2, 2), 8) == 1).all()

    @pytest.mark.slow
    def test_training_moves_the_threshold_to_the_median(self):
        network = API().train()
        importance = torch.linspace(0.6, 0.9, 16).view(1, 1, 4, 4)
        for _ in range(1000):
            network._route(torch.rand(1, 64, 32, 32), importance)
        assert network.threshold.item() == pytest.approx(0.75, abs=0.01)

    def test_importance_starts_out_as_density(self):
        network = API()
        density = torch.linspace(0, 1, 4).repeat_interleave(8).view(1, 1, 1, 32).expand(1, 1, 8, 32)
        importance = network.importance_head(torch.rand(1, 3, 32, 128), torch.rand(1, 64, 8, 32), density)
        assert (importance.flatten().diff() > 0).all()


class TestDCP:
    @pytest.mark.parametrize("shape", [(40, 70), (15, 15), (7, 100), (1, 1), (3, 2)])
    def test_minimum_filter_equals_scipy(self, shape):
        x = torch.rand(1, 1, *shape)
        expected = ndimage.minimum_filter(x[0, 0].numpy(), 15, mode="constant", cval=np.inf)
        assert np.array_equal(minimum_filter(x, 15)[0, 0].numpy(), expected)

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
