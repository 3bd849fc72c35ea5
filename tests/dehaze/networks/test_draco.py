import numpy as np
import pytest
import torch

from dehaze.cost import multiply_adds
from dehaze.networks.draco import DRACO, DRACOConfig


def test_size_as_published():
    network = DRACO().eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == 235_566
    # At 256×256, where there are 64 times as many pixels, and every layer but squeeze and excitation is one of pixels.
    assert 64 * multiply_adds(network, torch.zeros(1, 3, 32, 32)) == pytest.approx(15.35e9, rel=0.01)


def test_parts_have_the_papers_sizes():
    network = DRACO()
    parts = {name: sum(p.numel() for p in child.parameters()) for name, child in network.named_children()}
    assert parts == {"stem": 896, "ddirb": 7_782, "head1": 867, "attdrn": 225_154, "head2": 867}


def test_stages_are_k_forms():
    """With heads that give 0.5 and 0.25 everywhere, K₁ = I + 0.5 and K₂ = I + 0.75."""
    network = DRACO()
    for head, value in ((network.head1, 0.5), (network.head2, 0.25)):
        torch.nn.init.zeros_(head.weight)
        torch.nn.init.constant_(head.bias, value)
    hazy = torch.rand(2, 3, 9, 7)
    first, second = network.stages(hazy)
    torch.testing.assert_close(first, ((hazy + 0.5) * hazy - (hazy + 0.5) + 1).clamp(0, 1))
    torch.testing.assert_close(second, ((hazy + 0.75) * hazy - (hazy + 0.75) + 1).clamp(0, 1))


@pytest.mark.parametrize("dilated", [False, True])
def test_dilations_of_ddirb_reach_farther_and_cost_nothing(dilated):
    torch.manual_seed(0)
    network = DRACO(DRACOConfig(dilated_depthwise=dilated)).eval()
    assert sum(parameter.numel() for parameter in network.parameters()) == 235_566
    for stage in network.ddirb:  # squeeze and excitation sees the whole image
        torch.nn.init.zeros_(stage.excite.weight)
    seen = torch.rand(1, 32, 41, 41, requires_grad=True)
    network.ddirb(seen)[0, :, 20, 20].sum().backward()
    rows = seen.grad.abs().sum((0, 1, 3)).nonzero().flatten() - 20
    assert np.abs(rows).max() <= (8 if dilated else 3)
    assert np.abs(rows).max() > (3 if dilated else 0)


def test_every_parameter_learns():
    torch.manual_seed(0)
    network = DRACO()
    for bias in (network.head1.bias, network.head2.bias):  # no rectifier shut
        torch.nn.init.constant_(bias, 0.5)
    for stage in network.ddirb:
        torch.nn.init.constant_(stage.squeeze.bias, 1.0)
    first, second = network.stages(0.5 + 0.5 * torch.rand(2, 3, 24, 24))
    (first.mean() + second.mean()).backward()
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.abs().sum() > 0, name
