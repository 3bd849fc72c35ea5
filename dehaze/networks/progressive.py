"""The progressive framework (ICASSP 2023) around any network: pre-restoration, then alternating rounds of the network.

From the paper: an efficient module that restores first, and an exchangeable one that restores in rounds. Every layer is
ours.
"""

import math
from dataclasses import dataclass, replace
from functools import cache
from typing import Annotated, ClassVar, Generic, TypeVar

import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.filters.guided import follow
from dehaze.networks.base import Network, RoutesPatches, TakesInstruction
from dehaze.networks.limits import Width

Backbone = TypeVar("Backbone")


@dataclass(frozen=True)
class ProgressiveConfig(Generic[Backbone]):
    """Rounds of the backbone, width of the pre-restoration, and the backbone's own configuration.

    `backbone` is that of the backbone's class, or None for its defaults. Make `width` a multiple of 16: with others the
    gradients of dilated convolutions in bfloat16 are wrong on CPUs (oneDNN, seen with torch 2.15).
    """

    rounds: Annotated[int, Field(ge=1, le=6)] = 2  # the image is padded to multiples that double with each
    width: Width = 32
    backbone: Backbone | None = None


class Context(nn.Module):
    """Add to features [B,C,h,w] a function of their mean over the whole image, which a convolution cannot see."""

    def __init__(self, channels: int):
        super().__init__()
        self.layer = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x + self.layer(x.mean((2, 3), keepdim=True)))


class PRM(nn.Module):
    """Pre-restoration: `J₀ = clip(K·I − K + 1)`, K from dilated convolutions at half the resolution with context."""

    def __init__(self, width: int):
        super().__init__()
        self.stem = nn.Conv2d(12, width, 3, padding=1)
        self.layers = nn.ModuleList(
            nn.Sequential(nn.Conv2d(width, width, 3, padding=dilation, dilation=dilation), Context(width))
            for dilation in (1, 2, 4, 8)
        )
        self.head = nn.Conv2d(width, 3, 3, padding=1)
        for parameter in self.head.parameters():  # untrained, it returns its input
            nn.init.zeros_(parameter)

    def forward(self, hazy: Tensor) -> Tensor:
        x = F.pixel_unshuffle(hazy - 0.5, 2).contiguous(memory_format=torch.channels_last)
        x = F.relu(self.stem(x))
        for layer in self.layers:
            x = x + layer(x)
        k = 1 + F.interpolate(self.head(x), scale_factor=2.0, mode="bilinear", align_corners=False)
        return (k * hazy - k + 1).clamp(0, 1)


class Gate(nn.Module):
    """Mix two images by a map of the second one's share, which is `share` everywhere before training."""

    def __init__(self, share: float):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(6, 16, 3, padding=1), nn.ReLU(), Context(16), nn.Conv2d(16, 1, 3, padding=1)
        )
        nn.init.zeros_(self.layers[-1].get_parameter("weight"))
        nn.init.constant_(self.layers[-1].get_parameter("bias"), math.log(share / (1 - share)))

    def forward(self, first: Tensor, second: Tensor) -> Tensor:
        share = torch.sigmoid(self.layers(F.avg_pool2d(torch.cat([first, second], 1), 4)))
        share = F.interpolate(share, scale_factor=4.0, mode="bilinear", align_corners=False)
        return first + share * (second - first)


class Progressive(Network):
    """Remove haze by steps around an exchangeable network, the backbone.

    PRM gives a first result J₀. Then the backbone restores a gated mix of the hazy image and J₀ in T rounds, with the
    same weights, from coarse to fine: the last round at full size, each earlier one on a copy of half the size of the
    next, where the backbone sees twice as far. A gate of each round mixes its result with the one before. Before
    training, the mix is nearly the hazy image, and the gates accept nearly all of the first round and half of each
    other: with two rounds the framework starts as the mean of the backbone at both sizes. `progressive` makes the class
    for a backbone.
    """

    backbone_class: ClassVar[type[Network]]
    config_class = ProgressiveConfig

    def __init__(self, config: ProgressiveConfig | None = None):
        super().__init__()
        config = config or ProgressiveConfig()
        if self.backbone_class.config_class is None:
            self.backbone = self.backbone_class()
        else:
            self.backbone = self.backbone_class(config.backbone)
            config = replace(config, backbone=self.backbone.config)
        self.config = config
        # PRM works at 1/2, the gates at 1/4 of the resolution.
        coarsest = 2 ** (config.rounds - 1)
        self.multiple_of = math.lcm(coarsest * self.backbone.multiple_of, 4)
        self.min_size = -(-coarsest * self.backbone.min_size // self.multiple_of) * self.multiple_of
        self.margin, self.tile_size = self.backbone.margin, self.backbone.tile_size
        self.prm = PRM(config.width)
        self.mix = Gate(0.02)
        self.accept = nn.ModuleList(Gate(0.5 if number else 0.98) for number in range(config.rounds))

    def stages(self, hazy: Tensor, **instruction: Tensor) -> list[Tensor]:
        """Return J₀, J₁, …, J_T of `hazy` [B,3,H,W] in [0,1], each of the same shape and range.

        `instruction` is what the backbone takes beside the image; maps [B,C,H,W] are reduced with it.
        """
        results = [self.prm(hazy)]
        mixed = self.mix(hazy, results[0])
        for number, accept in enumerate(self.accept, 1):
            restored = self._restore(mixed, 2 ** (len(self.accept) - number), instruction)
            results.append(accept(results[-1], restored))
        return results

    def _restore(self, image: Tensor, shrink: int, instruction: dict[str, Tensor]) -> Tensor:
        """Restore the image on a copy smaller by the factor `shrink`, and apply the change to the image."""
        if shrink == 1:
            return self.backbone(image, **instruction)
        copy = F.avg_pool2d(image, shrink)
        reduced = {name: F.avg_pool2d(x, shrink) if x.ndim == 4 else x for name, x in instruction.items()}
        return follow(image, copy.detach(), self.backbone(copy, **reduced).float()).clamp(0, 1)

    def forward(self, hazy: Tensor, **instruction: Tensor) -> Tensor:
        """Restore `hazy` [B,3,H,W] in [0,1]; return J_T, of the same shape and range."""
        return self.stages(hazy, **instruction)[-1]


class RoutingProgressive(Progressive, RoutesPatches):
    """The framework around a network that routes patches."""

    backbone: RoutesPatches

    @property
    def threshold(self) -> Tensor | None:
        """The backbone's threshold of importance."""
        return self.backbone.threshold


class InstructedProgressive(Progressive, TakesInstruction):
    """The framework around a network that CLIP instructs; every round takes the instruction of the hazy image."""

    backbone: TakesInstruction

    @property
    def instructions(self) -> tuple[str, ...]:
        """The fields of `Haze` that the backbone takes."""
        return self.backbone.instructions

    @property
    def clip(self) -> str:
        """The backbone's CLIP model."""
        return self.backbone.clip

    @property
    def embedding_size(self) -> int:
        """How many numbers the embeddings have that the backbone takes."""
        return self.backbone.embedding_size


@cache
def progressive(backbone: type[Network]) -> type[Progressive]:
    """Return the progressive framework around a class of networks, with the backbone's abilities that it passes on."""
    about = {"__doc__": Progressive.__doc__, "__module__": Progressive.__module__, "backbone_class": backbone}
    about["config_class"] = ProgressiveConfig[backbone.config_class]
    return type(f"Progressive{backbone.__name__}", (_base(backbone),), about)


def _base(backbone: type[Network]) -> type[Progressive]:
    if issubclass(backbone, RoutesPatches):
        return RoutingProgressive
    return InstructedProgressive if issubclass(backbone, TakesInstruction) else Progressive
