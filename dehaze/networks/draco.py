"""DRACO-DehazeNet (arXiv 2410.14595), layer by layer as in its authors' Keras code (MIT)."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.networks.base import Network

DILATIONS = (1, 2, 5)


@dataclass(frozen=True)
class DRACOConfig:
    """Where the dilations of DDIRB act.

    The authors' code dilates 1×1 convolutions, which has no effect. `dilated_depthwise=True` dilates the depthwise
    convolutions, as the paper describes. Train that in float32 on CPUs: in bfloat16 the gradients of dilated depthwise
    convolutions are wrong there (oneDNN, seen with torch 2.15).
    """

    dilated_depthwise: bool = False


def conv3x3(inputs: int, outputs: int, dilation: int = 1, groups: int = 1) -> nn.Conv2d:
    return nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, groups=groups)


class InvertedResidual(nn.Module):
    """One stage of DDIRB: 1×1, depthwise 3×3, squeeze and excitation, 1×1, added to the input."""

    def __init__(self, channels: int, dilation: int):
        super().__init__()
        self.expand = nn.Conv2d(channels, channels, 1)
        self.depthwise = conv3x3(channels, channels, dilation, groups=channels)
        self.squeeze = nn.Conv2d(channels, 2, 1)
        self.excite = nn.Conv2d(2, channels, 1)
        self.project = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.depthwise(F.relu(self.expand(x))))
        weight = torch.sigmoid(self.excite(F.relu(self.squeeze(y.mean((2, 3), keepdim=True)))))
        return x + F.relu(self.project(y * weight))


class ATTDRN(nn.Module):
    """Three parallel dilated convolutions, then channel attention, added, and pixel attention, multiplied."""

    def __init__(self, channels: int):
        super().__init__()
        wide = channels * len(DILATIONS)
        self.branches = nn.ModuleList(conv3x3(channels, channels, dilation) for dilation in DILATIONS)
        self.channel1, self.channel2, self.channel3 = conv3x3(wide, wide), conv3x3(wide, 1), conv3x3(1, wide)
        self.pixel1, self.pixel2, self.pixel3 = conv3x3(wide, wide), conv3x3(wide, 1), conv3x3(1, wide)
        self.out = conv3x3(wide, channels)

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cat([F.relu(branch(x)) for branch in self.branches], 1)
        y = y + torch.sigmoid(self.channel3(F.relu(self.channel2(F.relu(self.channel1(y))))))
        y = F.relu(self.pixel1(y))
        y = y * torch.sigmoid(self.pixel3(F.relu(self.pixel2(y))))
        return x + torch.sigmoid(self.out(y))


class DRACO(Network):
    """Remove haze in two steps, each a map K of the image: `J = clip(K·I − K + 1)`, as in AOD-Net.

    DDIRB, three inverted residuals with squeeze and excitation, predicts K₁ and so J₁. ATTDRN, dilated convolutions
    with attention, adds to K₁ for K₂ and J₂. Both keep the full resolution, at 32 and 96 channels, without
    normalisation. Weights are initialised as in Keras, but for the heads, which start small and above zero (ours): as
    in Keras, some of their rectified channels would output 0 for all images and never learn.
    """

    config_class = DRACOConfig
    margin = 0  # px; the authors' borders are zeros, which the network has learned to expect
    tile_size = 768  # px; some 2 kB of activations a pixel

    def __init__(self, config: DRACOConfig | None = None):
        super().__init__()
        self.config = config = config or DRACOConfig()
        self.stem = conv3x3(3, 32)
        dilations = DILATIONS if config.dilated_depthwise else (1, 1, 1)
        self.ddirb = nn.Sequential(*(InvertedResidual(32, dilation) for dilation in dilations))
        self.head1 = conv3x3(32, 3)
        self.attdrn = ATTDRN(32)
        self.head2 = conv3x3(32, 3)
        for layer in self.modules():
            if isinstance(layer, nn.Conv2d):
                nn.init.xavier_uniform_(layer.weight)
                nn.init.zeros_(layer.get_parameter("bias"))
        with torch.no_grad():
            for head in (self.head1, self.head2):
                head.weight *= 0.1
                head.get_parameter("bias").add_(0.25)

    def stages(self, hazy: Tensor) -> list[Tensor]:
        """Return J₁ and J₂ of `hazy` [B,3,H,W] in [0,1], each of the same shape and range."""
        x = self.ddirb(F.relu(self.stem(hazy)))
        k1 = F.relu(self.head1(x)) + hazy
        k2 = F.relu(self.head2(self.attdrn(x))) + k1
        return [(k * hazy - k + 1).clamp(0, 1) for k in (k1, k2)]

    def forward(self, hazy: Tensor) -> Tensor:
        """Restore `hazy` [B,3,H,W] in [0,1]; return J₂, of the same shape and range."""
        return self.stages(hazy)[-1]
