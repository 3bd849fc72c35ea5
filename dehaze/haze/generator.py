"""API's automatic haze generation (AHG, arXiv 2601.01992): transfer haze from one photograph to another.

Encoder, decoder, their loss and the hybrid augmentation follow the paper. The layers are ours, and so is the airlight,
which gives the haze its colour.
"""

from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.haze.fields import random_perlin_field
from dehaze.networks.api.network import residual_blocks
from dehaze.networks.base import Configured
from dehaze.networks.limits import Width

DEFAULT_AIRLIGHT = 0.8  # in [0,1], grey


@dataclass(frozen=True)
class GeneratorConfig:
    """Widths of encoder and decoder at 1/4, 1/8 and 1/16 of the resolution."""

    encoder_widths: tuple[Width, Width, Width] = (32, 48, 64)
    decoder_widths: tuple[Width, Width, Width] = (32, 48, 64)


class UNet(nn.Module):
    """Three levels of residual blocks: [B,C,h,w] to features of the same size and the means of the coarsest level."""

    def __init__(self, channels: int, widths: tuple[int, ...]):
        super().__init__()
        self.stem = nn.Conv2d(channels, widths[0], 3, padding=1)
        self.encoders = nn.ModuleList(residual_blocks(1 + (width == widths[-1]), width) for width in widths)
        self.downs = nn.ModuleList(nn.Conv2d(fine, coarse, 3, stride=2, padding=1) for fine, coarse in pairwise(widths))
        self.ups = nn.ModuleList(nn.Conv2d(coarse, fine, 1) for fine, coarse in pairwise(widths))
        self.decoders = nn.ModuleList(residual_blocks(1, width) for width in widths[:-1])

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        x = self.encoders[0](self.stem(x.contiguous(memory_format=torch.channels_last)))
        skips = []
        for down, encoder in zip(self.downs, self.encoders[1:], strict=True):
            skips.append(x)
            x = encoder(down(x))
        pooled = x.mean((2, 3))
        for up, decoder, skip in zip(reversed(self.ups), reversed(self.decoders), reversed(skips), strict=True):
            x = decoder(F.interpolate(up(x), size=skip.shape[-2:], mode="bilinear", align_corners=False) + skip)
        return x, pooled


class HazeGenerator(Configured):
    """Estimate the haze density of a photograph, and render a density onto a clear photograph.

    The encoder E is a U-Net from the image to its haze density. The decoder D is a U-Net on the clear image, a density
    and an airlight. It predicts three smooth maps: the gain of the density, the local airlight, and added light. Where
    the density is 0, the photograph stays unchanged. Both work at 1/4 of the resolution.
    """

    config_class = GeneratorConfig
    multiple_of: ClassVar[int] = 16

    def __init__(self, config: GeneratorConfig | None = None):
        super().__init__()
        self.config = config = config or GeneratorConfig()
        self.encoder = UNet(3 * 16, config.encoder_widths)
        self.density_head = nn.Conv2d(config.encoder_widths[0], 1, 3, padding=1)
        self.airlight_head = nn.Linear(config.encoder_widths[-1], 3)
        self.decoder = UNet(3 * 16 + 1 + 3, config.decoder_widths)
        self.haze_head = nn.Conv2d(config.decoder_widths[0], 7, 3, padding=1)
        for parameter in self.haze_head.parameters():  # an untrained decoder follows the scattering model
            nn.init.zeros_(parameter)

    def encode(self, image: Tensor) -> Tensor:
        """Estimate the haze density [B,1,H,W] in [0,1] of `image` [B,3,H,W] in [0,1], sides multiples of 16."""
        return self.encode_with_airlight(image)[0]

    def encode_with_airlight(self, image: Tensor) -> tuple[Tensor, Tensor]:
        """Estimate the haze density [B,1,H,W] and the airlight [B,3] of `image`, both in [0,1]."""
        features, pooled = self.encoder(F.pixel_unshuffle(image - 0.5, 4))
        logit = F.interpolate(self.density_head(features), size=image.shape[-2:], mode="bilinear", align_corners=False)
        return logit.float().sigmoid(), self.airlight_head(pooled).float().sigmoid()

    def decode(self, clear: Tensor, density: Tensor, airlight: Tensor | None = None) -> Tensor:
        """Render haze onto `clear` [B,3,H,W] in [0,1], sides multiples of 16; return the same shape, in [0,1].

        `density` [B,1,H,W] and `airlight` [B,3] are in [0,1]; the default airlight is a light grey.
        """
        return self.apply_maps(clear, density, self.maps(clear, density, airlight))

    def maps(self, clear: Tensor, density: Tensor, airlight: Tensor | None = None) -> Tensor:
        """Predict gain (1 channel, 0 to 2), local airlight (3) and added light (3) for `decode`: [B,7,H/4,W/4]."""
        if airlight is None:
            airlight = clear.new_full((len(clear), 3), DEFAULT_AIRLIGHT)
        scene, coarse = F.pixel_unshuffle(clear - 0.5, 4), F.avg_pool2d(density, 4)
        airlight = airlight[:, :, None, None]
        seen = torch.cat([scene, coarse, airlight.expand(-1, -1, *coarse.shape[-2:]) - 0.5], 1)
        gain, shift, added = self.haze_head(self.decoder(seen)[0]).float().split([1, 3, 3], 1)
        return torch.cat([2 * gain.sigmoid(), airlight + 0.5 * shift.tanh(), 0.5 * added.tanh()], 1)

    @staticmethod
    def apply_maps(clear: Tensor, density: Tensor, maps: Tensor) -> Tensor:
        """Apply maps of any resolution to `clear` [B,3,H,W] and `density` [B,1,H,W]; return hazy images in [0,1]."""
        maps = F.interpolate(maps, size=clear.shape[-2:], mode="bilinear", align_corners=False)
        gain, airlight, added = maps.split([1, 3, 3], 1)
        opacity = (density * gain).clamp(0, 1)
        return (torch.lerp(clear, airlight, opacity) + added * density).clamp(0, 1)

    def rehaze(self, clear: Tensor, hazy_from: Tensor, rng: torch.Generator) -> tuple[Tensor, Tensor]:
        """Render the haze of the photographs `hazy_from` onto the clear ones; both [B,3,H,W] in [0,1].

        E estimates density and airlight. `rng`, on the CPU, draws α ~ U[0,1] for each sample, and Perlin noise in half
        of the calls. Returns the hazy images and their densities [B,1,H,W], in [0,1].
        """
        densities, airlights = self.encode_with_airlight(torch.cat([clear, hazy_from]))
        alpha, nonuniform = torch.rand(len(clear), generator=rng), torch.rand((), generator=rng) < 0.5
        of_clear, of_hazy = densities.chunk(2)
        density = hybrid_density(of_clear, of_hazy, alpha, rng, float(nonuniform))
        return self.decode(clear, density, airlights[len(clear) :]), density


def hybrid_density(
    clear_density: Tensor,
    hazy_density: Tensor,
    alpha: float | Tensor,
    generator: torch.Generator,
    nonuniform: float = 1.0,
) -> Tensor:
    """Mix two densities [B,1,H,W] in [0,1]: `M̃ = α·M_c + (1 − α)·M_h`, then `M̂ = M̃ ⊙ P` (API, AHG).

    `alpha` in [0,1] is one number or one per sample [B]. P is multi-octave Perlin noise in [0.5, 1.5], drawn for each
    sample; its contrast is scaled by `nonuniform` in [0,1]. Returns the density [B,1,H,W], clipped to [0,1].
    """
    alpha = torch.as_tensor(alpha, dtype=clear_density.dtype, device=clear_density.device).view(-1, 1, 1, 1)
    density = torch.lerp(hazy_density, clear_density, alpha)
    if nonuniform:
        height, width = density.shape[-2:]
        fields = [random_perlin_field(height, width, generator) for _ in density]
        density = density * (1 + nonuniform * (torch.stack(fields)[:, None].to(density) - 1))
    return density.clamp(0, 1)


def load_generator(weights: str | Path = "shipped") -> HazeGenerator:
    """Load the generator on the CPU, in eval mode. `weights` is given as to `dehaze.load`. Raises WeightsError."""
    from dehaze.hub import build_network, find_weights

    return build_network("ahg", HazeGenerator, find_weights("ahg", weights))
