from dataclasses import asdict

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import dehaze
from dehaze.cost import multiply_adds
from dehaze.errors import UnknownModelError, WeightsError
from dehaze.filters.guided import follow
from dehaze.hub import load_network, save_weights, shipped_folder
from dehaze.networks import NETWORKS
from dehaze.networks.api.network import APIConfig
from dehaze.networks.base import Network
from dehaze.networks.draco import DRACO, DRACOConfig
from dehaze.networks.progressive import PRM, Gate, Progressive, ProgressiveConfig, progressive

TINY = APIConfig(widths=(8, 8, 8), down_blocks=(1, 1, 1), up_blocks=(1, 1), two_sizes=False)


class Darken(Network):
    """Darken by a tenth, and note what was seen."""

    multiple_of, min_size, margin, tile_size = 6, 18, 5, 300

    def __init__(self):
        super().__init__()
        self.seen = []

    def forward(self, hazy):
        self.seen.append(hazy)
        return 0.9 * hazy


def test_prm_is_small():
    prm = PRM(ProgressiveConfig().width)
    assert sum(parameter.numel() for parameter in prm.parameters()) == 45_571
    assert 16 * multiply_adds(prm, torch.zeros(1, 3, 64, 64)) < 0.7e9


@torch.no_grad()
def test_prm_and_gates_know_of_the_whole_image():
    torch.manual_seed(0)
    for part, images in ((PRM(32), 1), (Gate(0.5), 2)):
        for parameter in part.parameters():
            if not parameter.any():
                nn.init.normal_(parameter, std=0.1)
        seen = [torch.rand(1, 3, 64, 192) for _ in range(images)]
        touched = [torch.cat([1 - image[..., :16], image[..., 16:]], -1) for image in seen]
        assert not torch.equal(part(*seen)[..., -8:], part(*touched)[..., -8:])


@pytest.mark.parametrize("rounds", [1, 2, 3])
def test_rounds_go_from_coarse_to_fine(rounds):
    network = progressive(Darken)(ProgressiveConfig(rounds=rounds))
    nn.init.constant_(network.prm.head.bias, 0.5)  # K = 1.5
    hazy = torch.rand(1, 3, 48, 96)
    stages = network.stages(hazy)
    assert len(stages) == rounds + 1
    torch.testing.assert_close(stages[0], (1.5 * hazy - 0.5).clamp(0, 1))
    mixed = torch.lerp(hazy, stages[0], 0.02)
    for number, seen in enumerate(network.backbone.seen):
        torch.testing.assert_close(seen, F.avg_pool2d(mixed, 2 ** (rounds - 1 - number)))
        # Almost all of the first round's result is accepted, and half of the others'.
        accepted = torch.lerp(stages[number], 0.9 * mixed, 0.5 if number else 0.98)
        torch.testing.assert_close(stages[number + 1], accepted, atol=2e-3, rtol=0)


@torch.no_grad()
def test_it_starts_as_the_mean_of_the_backbone_at_both_sizes():
    torch.manual_seed(0)
    network = NETWORKS.get("progressive:draco")()
    hazy = torch.rand(1, 3, 64, 64)
    copy = F.avg_pool2d(hazy, 2)
    by_copy, whole = follow(hazy, copy, network.backbone(copy)).clamp(0, 1), network.backbone(hazy)
    first, second = network.stages(hazy)[1:]
    torch.testing.assert_close(first, by_copy, atol=0.03, rtol=0)
    torch.testing.assert_close(second, (by_copy + whole) / 2, atol=0.03, rtol=0)


def test_the_gate_may_differ_from_place_to_place():
    gate = Gate(0.5)
    nn.init.zeros_(gate.layers[0].weight), nn.init.zeros_(gate.layers[0].bias)
    nn.init.constant_(gate.layers[0].weight[:, 0, 1, 1].data, 1.0)  # sees red at its own place
    nn.init.constant_(gate.layers[-1].weight[:, :, 1, 1].data, 20.0)
    nn.init.constant_(gate.layers[-1].bias, -100.0)
    hazy, restored = torch.zeros(1, 3, 16, 32), torch.full((1, 3, 16, 32), 0.5)
    hazy[..., 16:] = 1.0
    mixed = gate(hazy, restored)
    torch.testing.assert_close(mixed[..., :12], hazy[..., :12])
    torch.testing.assert_close(mixed[..., 20:], restored[..., 20:])


@pytest.mark.parametrize(("rounds", "multiple_of", "min_size"), [(1, 12, 24), (2, 12, 36), (3, 24, 72)])
def test_the_wrapper_asks_for_sizes_that_suit_all_rounds(rounds, multiple_of, min_size):
    network = progressive(Darken)(ProgressiveConfig(rounds=rounds))
    advice = network.multiple_of, network.min_size, network.margin, network.tile_size
    assert advice == (multiple_of, min_size, 5, 300)
    restored, density = dehaze.Dehazer("test", network, torch.device("cpu"), torch.float32).restore_tensor(
        torch.rand(1, 3, 13, 27)
    )
    assert restored.shape == (1, 3, 13, 27)
    assert density is None


def test_every_part_learns_from_the_last_stage():
    torch.manual_seed(0)
    network = NETWORKS.get("progressive:api")(ProgressiveConfig(backbone=TINY))
    for parameter in network.parameters():
        if not parameter.any():  # what starts at 0 keeps gradients from what is before it
            nn.init.normal_(parameter, std=0.1)
    hazy = 0.3 + 0.4 * torch.rand(2, 3, 64, 64)
    F.l1_loss(network(hazy), torch.rand_like(hazy)).backward()
    for part in (network.prm, network.mix, *network.accept, network.backbone.head):
        for name, parameter in part.named_parameters():
            assert parameter.grad.abs().sum() > 0, name


def test_names_are_composed():
    wrapped = NETWORKS.get("progressive:draco")
    assert issubclass(wrapped, Progressive)
    assert wrapped is NETWORKS.get("progressive:draco")
    assert wrapped.backbone_class is DRACO
    assert isinstance(wrapped().backbone, DRACO)
    with pytest.raises(UnknownModelError, match="Did you mean progressive:draco"):
        dehaze.load("progressive:drako")
    assert shipped_folder("progressive:draco").name == "progressive_draco"


def test_what_is_saved_is_loaded_with_the_backbones_configuration(tmp_path):
    torch.manual_seed(0)
    for name, backbone in (("progressive:draco", DRACOConfig(dilated_depthwise=True)), ("progressive:api", TINY)):
        network = NETWORKS.get(name)(ProgressiveConfig(rounds=1, backbone=backbone)).eval()
        save_weights(network, tmp_path / name.replace(":", "_"))
        loaded, _ = load_network(name, tmp_path / name.replace(":", "_"))
        assert loaded.config == network.config
        assert loaded.config.backbone == backbone
        hazy = torch.rand(1, 3, 32, 32)
        assert torch.equal(loaded(hazy), network(hazy))


def test_weights_around_another_backbone_are_refused(tmp_path):
    save_weights(NETWORKS.get("progressive:draco")(), tmp_path)
    with pytest.raises(WeightsError, match="not of the model 'progressive:api'"):
        load_network("progressive:api", tmp_path)
    with pytest.raises(WeightsError, match="not of the model 'draco'"):
        load_network("draco", tmp_path)


def test_the_configuration_of_the_backbone_is_always_written_out():
    assert asdict(NETWORKS.get("progressive:draco")().config)["backbone"] == {"dilated_depthwise": False}
