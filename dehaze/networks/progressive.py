"""The progressive framework (ICASSP 2023) around any network: pre-restoration, then alternating rounds of the network.

The paper gives the two modules, an efficient one that restores first and an exchangeable one that restores in turns,
and that together they close the gap between hazy and clear by steps; every layer here is ours.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class ProgressiveConfig:
    """Rounds of the backbone, width of the pre-restoration, and the backbone's own configuration.

    `backbone` is that of the backbone's class, a dictionary of its fields, or None for its defaults. Make `width` a
    multiple of 16: with others the gradients of dilated convolutions in bfloat16 are wrong on CPUs (oneDNN, seen with
    torch 2.15).
    """

    rounds: int = 2
    width: int = 32
    backbone: Any = None


class Context(nn.Module):
    """Add to features [B,C,h,w] what their mean over the whole image says, which a convolution alone cannot see."""

    def __init__(self, channels: int):
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.layer(x.mean((2, 3), keepdim=True)))


class PRM(nn.Module):
    """Restore roughly: dilated convolutions at half the resolution, which know of the whole image, give a map K.

    `J₀ = clip(K·I − K + 1)`.
    """

    def __init__(self, width: int):
        super().__init__()
        self.stem = nn.Conv2d(12, width, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation), Context(width))
            for dilation in (1, 2, 4, 8)
        )
        self.head = nn.Conv2d(width, 3, 3, padding=1)
        nn.init.zeros_(self.head.weight)  # untrained, it returns its input
        nn.init.zeros_(self.head.bias)

    def forward(self, hazy: Tensor) -> Tensor:
        x = F.pixel_unshuffle(hazy - 0.5, 2).contiguous(memory_format=torch.channels_last)
        x = F.relu(self.stem(x))
        for layer in self.layers:
            x = x + layer(x)
        k = 1 + F.interpolate(self.head(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        return (k * hazy - k + 1).clamp(0, 1)


class Gate(nn.Module):
    """Mix two images by the share of the second, which changes from place to place and is `share` at first."""

    def __init__(self, share: float):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(6, 16, 3, padding=1), nn.ReLU(), Context(16), nn.Conv2d(16, 1, 3, padding=1)
        )
        nn.init.zeros_(self.layers[-1].weight)
        nn.init.constant_(self.layers[-1].bias, math.log(share / (1 - share)))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        share = torch.sigmoid(self.layers(F.avg_pool2d(torch.cat([first, second], 1), 4)))
        share = F.interpolate(share, scale_factor=4.0, mode="bilinear", align_corners=False)
        return first + share * (second - first)


class Progressive(nn.Module, PyTorchModelHubMixin):
    """Remove haze by steps around an exchangeable network, the backbone.

    PRM gives a first result J₀. Then the backbone, with the same weights, runs for T rounds: odd ones restore from a
    gated mix of the hazy image and the last result, even ones refine the last result. Each round's result is accepted
    by a gate of its own, place by place; where it is not, the result before stays. At first the gates let all of the
    first round pass and little of the others, so that the framework starts as the backbone alone. `progressive` makes
    the class for a backbone.
    """

    backbone_class: ClassVar[type[nn.Module]]
    config_class = ProgressiveConfig
    multiple_of: ClassVar[int]
    min_size: ClassVar[int]
    margin: ClassVar[int]
    tile_size: ClassVar[int | None]

    def __init__(self, config: ProgressiveConfig | None = None):
        super().__init__()
        config = config or ProgressiveConfig()
        if self.backbone_class.config_class is None:
            self.backbone = self.backbone_class()
        else:
            given = config.backbone or {}
            own = self.backbone_class.config_class(**given) if isinstance(given, dict) else given
            self.backbone = self.backbone_class(own)
            config = replace(config, backbone=own)
        self.config = config
        self.prm = PRM(config.width)
        self.mix = Gate(0.05)
        self.accept = nn.ModuleList(Gate(0.1 if number else 0.98) for number in range(config.rounds))

    @property
    def threshold(self) -> Tensor:
        return self.backbone.threshold

    def stages(self, hazy: Tensor) -> list[Tensor]:
        """Return J₀, J₁, …, J_T of `hazy` [B,3,H,W] in [0,1], each of the same shape and range."""
        results = [self.prm(hazy)]
        for number, accept in enumerate(self.accept):
            last = results[-1]
            results.append(accept(last, self.backbone(last if number % 2 else self.mix(hazy, last))))
        return results

    def forward(self, hazy: Tensor) -> Tensor:
        """Restore `hazy` [B,3,H,W] in [0,1]; return J_T, of the same shape and range."""
        return self.stages(hazy)[-1]


@cache
def progressive(backbone: type[nn.Module]) -> type[Progressive]:
    """Return the progressive framework around a class of networks."""
    multiple_of = math.lcm(backbone.multiple_of, 4)  # PRM works at 1/2, the gate at 1/4 of the resolution
    size = {"multiple_of": multiple_of, "min_size": -(-backbone.min_size // multiple_of) * multiple_of}
    advice = {"margin": backbone.margin, "tile_size": backbone.tile_size}
    about = {"__doc__": Progressive.__doc__, "__module__": Progressive.__module__, "backbone_class": backbone}
    return type(f"Progressive{backbone.__name__}", (Progressive,), about | size | advice)
