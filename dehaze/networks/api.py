"""API: the density-aware haze removal network (arXiv 2601.01992), its backbone.

The paper's text gives the idea, not the layers; every layer here is ours.
"""

from dataclasses import dataclass
from itertools import pairwise
from typing import ClassVar

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class APIConfig:
    """Widths at 1/2, 1/4, 1/8 and 1/16 of the resolution, and residual blocks on the way down and up."""

    widths: tuple[int, int, int, int] = (32, 64, 96, 96)
    down_blocks: tuple[int, int, int, int] = (1, 2, 3, 2)
    up_blocks: tuple[int, int, int] = (1, 2, 2)


class ResidualBlock(nn.Module):
    """Add two dense 3×3 convolutions, gated per channel by the mean of their output, to the input."""

    def __init__(self, channels: int):
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.gate = nn.Sequential(
            nn.Conv2d(channels, channels // 4, 1), nn.ReLU(), nn.Conv2d(channels // 4, channels, 1), nn.Sigmoid()
        )

    def forward(self, x: Tensor) -> Tensor:
        y = self.conv2(F.relu(self.conv1(x)))
        return x + y * self.gate(y.mean((2, 3), keepdim=True))


def residual_blocks(count: int, channels: int) -> nn.Sequential:
    return nn.Sequential(*(ResidualBlock(channels) for _ in range(count)))


class API(nn.Module, PyTorchModelHubMixin):
    """Remove haze by an affine map of the colours at every pixel, `J = (1 + K)·I − B`.

    A U-Net of plain residual blocks reads the image at half resolution (pixel unshuffle) and predicts K (3×3) and B (3)
    there; both are brought up bilinearly, so that they are smooth, as haze is, and cannot draw a grid. With K a
    multiple of the identity this is the soft reconstruction of DehazeFormer and gUNet; the full matrix can also give
    back the saturation that haze took (ours). A density head on the features at 1/4 of the resolution estimates 1 − t.
    """

    config_class = APIConfig
    multiple_of: ClassVar[int] = 16
    min_size: ClassVar[int] = 16
    margin: ClassVar[int] = 16
    tile_size: ClassVar[int] = 1536

    def __init__(self, config: APIConfig | None = None):
        super().__init__()
        self.config = config = config or APIConfig()
        widths = config.widths
        self.stem = nn.Conv2d(12, widths[0], 3, padding=1)
        self.encoders = nn.ModuleList(map(residual_blocks, config.down_blocks, widths))
        self.downs = nn.ModuleList(nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairwise(widths))
        self.ups = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(widths))
        self.decoders = nn.ModuleList(map(residual_blocks, config.up_blocks, widths))
        self.density_head = nn.Sequential(
            nn.Conv2d(widths[1], widths[0], 3, padding=1), nn.ReLU(), nn.Conv2d(widths[0], 1, 1)
        )
        self.head = nn.Conv2d(widths[0], 12, 3, padding=1)
        nn.init.zeros_(self.head.weight)  # an untrained network returns its input
        nn.init.zeros_(self.head.bias)

    def _features(self, hazy: Tensor) -> tuple[Tensor, Tensor]:
        """Return the decoder's features at 1/2 and at 1/4 of the resolution."""
        # Pixel (un)shuffles leave channels_last; without it the convolutions after them are slow on CPUs.
        x = F.pixel_unshuffle(hazy - 0.5, 2).contiguous(memory_format=torch.channels_last)
        x = self.encoders[0](self.stem(x))
        skips = []
        for down, encoder in zip(self.downs, self.encoders[1:], strict=True):
            skips.append(x)
            x = encoder(down(x))
        coarser = x
        for up, decoder, skip in zip(reversed(self.ups), reversed(self.decoders), reversed(skips), strict=True):
            coarser = x
            x = F.interpolate(up(x), scale_factor=2.0, mode="bilinear", align_corners=False)
            x = decoder(x + skip)
        return x, coarser

    def maps(self, hazy: Tensor) -> Tensor:
        """Return K (9 channels), B (3) and the logit of the density (1), [B,13,H/2,W/2]."""
        fine, coarse = self._features(hazy)
        logit = F.interpolate(self.density_head(coarse), scale_factor=2.0, mode="bilinear", align_corners=False)
        return torch.cat([self.head(fine), logit], 1)

    @staticmethod
    def apply_maps(hazy: Tensor, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Apply maps [B,13,h,w] of any resolution to `hazy` [B,3,H,W].

        Returns `(1 + K)·I − B`, not clipped, and the density 1 − t [B,1,H,W] in [0,1].
        """

        def at_full_size(channel: int) -> Tensor:
            # One map at a time: all of them at the size of a large photograph would fill the memory.
            map_ = maps[:, channel : channel + 1].to(hazy.dtype)
            return F.interpolate(map_, size=hazy.shape[-2:], mode="bilinear", align_corners=False)

        restored = []
        for row in range(3):
            channel = hazy[:, row : row + 1] - at_full_size(9 + row)
            for column in range(3):
                channel = torch.addcmul(channel, at_full_size(3 * row + column), hazy[:, column : column + 1])
            restored.append(channel)
        return torch.cat(restored, 1), at_full_size(12).sigmoid()

    def restore_with_density(self, hazy: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored image, not clipped, and the density 1 − t [B,1,H,W] from one pass."""
        return self.apply_maps(hazy, self.maps(hazy))

    def forward(self, hazy: Tensor) -> Tensor:
        """Restore `hazy` [B,3,H,W] in [0,1], H and W multiples of 16; return the same shape, clipped to [0,1]."""
        return self.restore_with_density(hazy)[0].clamp(0, 1)

    def stages(self, hazy: Tensor) -> list[Tensor]:
        """Return the only stage: the output."""
        return [self(hazy)]

    def density(self, hazy: Tensor) -> Tensor:
        """Return the estimated haze density 1 − t, [B,1,H,W] in [0,1]."""
        return self.restore_with_density(hazy)[1]
