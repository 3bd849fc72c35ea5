"""The physical renderer: a clear photograph and its depth in, a hazy one and its ground truth out."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dehaze.haze.degradation import add_noise, jpeg
from dehaze.haze.fields import brownian_field, perlin_field, ramp, random_perlin_field, uniform
from dehaze.haze.scattering import linear_to_srgb, scatter, srgb_to_linear, transmission
from dehaze.haze.sky import overcast, sky_mask


@dataclass(frozen=True)
class RendererConfig:
    """Ranges of uniform draws and shares (probabilities) of what is rendered.

    The range of β is CORUN's, a little wider; noise and JPEG are RIDCP's, milder; the base haze, ramps, coloured
    airlight, airlight maps, clear samples and linear light are ours, and so is a gamma that brightens as well: with
    RIDCP's, which only darkens, a network learns to brighten every photograph. The exposure is ours, too: without it
    dark scenes are restored too bright and bright ones too dark, for most photographs are neither. So are the overcast
    skies, without which a network paints blue ones onto haze.
    """

    beta: tuple[float, float] = (0.2, 3.2)  # scattering coefficient times a depth in [0,1]
    base: tuple[float, float] = (0.0, 0.6)  # optical depth in front of the nearest point
    dense_base: tuple[float, float] = (0.5, 2.0)
    depth_gamma: tuple[float, float] = (0.6, 2.5)  # above 1 the haze gathers in the distance
    airlight: tuple[float, float] = (0.4, 1.0)
    airlight_shift: float = 0.025  # independent for each channel
    airlight_warmth: float = 0.15  # red up and blue down, or the reverse
    airlight_unevenness: tuple[float, float] = (0.1, 0.6)  # of an airlight map: lit haze glows here and is dim there
    gamma: tuple[float, float] = (0.75, 1.6)  # of the scene before the haze
    exposure: tuple[float, float] = (0.6, 2.0)  # a gamma of the scene and of its ground truth alike
    noise: tuple[float, float] = (0.5 / 255, 3 / 255)
    jpeg_quality: tuple[float, float] = (75, 95)

    clear_share: float = 0.08  # no haze at all: input and target are the same
    base_share: float = 0.55  # without a base the foreground is clear, as in a view from a mountain
    dense_share: float = 0.15
    perlin_share: float = 0.2
    brownian_share: float = 0.15
    ramp_share: float = 0.2  # estimated depth is wrong at times; machine haze does not follow it
    warm_share: float = 0.5
    airlight_map_share: float = 0.2
    linear_share: float = 0.15  # scattering in linear light, as physics has it, instead of in sRGB values
    gamma_share: float = 0.3
    overcast_share: float = 0.0  # the sky of the ground truth is made grey, and as bright as the airlight
    exposure_share: float = 0.0
    noise_share: float = 0.2
    jpeg_share: float = 0.3


@dataclass(frozen=True)
class HazeMixture:
    """Several kinds of haze, and how often each is rendered: (share, kind), the shares adding up to 1 (ours)."""

    kinds: tuple[tuple[float, RendererConfig], ...]

    def __post_init__(self):
        if not math.isclose(total := sum(share for share, _ in self.kinds), 1):
            raise ValueError(f"the shares of a mixture of haze add up to {total:g}; they must to 1")

    def draw(self, generator: torch.Generator) -> RendererConfig:
        """Draw one of the kinds."""
        shares = torch.tensor([share for share, _ in self.kinds])
        return self.kinds[int(shares.multinomial(1, generator=generator))][1]


@dataclass(frozen=True)
class Rendered:
    """A hazy image with its ground truth: `hazy`, `clear`, an `airlight` map [3,H,W] and `transmission` [1,H,W]."""

    hazy: Tensor
    clear: Tensor
    transmission: Tensor
    airlight: Tensor


class HazeRenderer:
    """Render random haze of one kind, or of a mixture, onto clear photographs.

    Everything random comes from the generator given, so that the same seed gives the same haze. A mixture renders; what
    is drawn singly, an airlight or an optical depth, is of one kind.
    """

    def __init__(self, config: RendererConfig | HazeMixture | None = None):
        self.config = config or RendererConfig()

    def optical_depth(self, depth: Tensor, generator: torch.Generator) -> Tensor:
        """Draw an optical depth τ = (β·d^γ + base)·P ≥ 0, [1,H,W], for a depth [H,W] in [0,1], 1 being far."""
        config, rand = self.config, torch.rand(3, generator=generator).tolist()
        height, width = depth.shape
        if rand[0] < config.ramp_share:
            depth = ramp(height, width, generator)
        optical_depth = uniform(*config.beta, generator) * depth ** uniform(*config.depth_gamma, generator)
        if rand[1] < config.base_share + config.dense_share:
            base = config.dense_base if rand[1] < config.dense_share else config.base
            optical_depth = optical_depth + uniform(*base, generator)
        if rand[2] < config.perlin_share:
            optical_depth = optical_depth * random_perlin_field(height, width, generator)
        elif rand[2] < config.perlin_share + config.brownian_share:
            optical_depth = optical_depth * (0.2 + 1.6 * brownian_field(height, width, generator))
        return optical_depth[None]

    def airlight(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Draw an airlight map [3,H,W] in [0.2, 1]: grey, or warm or cool; even, or brighter here than there."""
        config = self.config
        airlight = torch.full((3,), uniform(*config.airlight, generator))
        airlight += config.airlight_shift * (2 * torch.rand(3, generator=generator) - 1)
        if torch.rand((), generator=generator) < config.warm_share:
            warmth = uniform(-config.airlight_warmth, config.airlight_warmth, generator)
            airlight += warmth * torch.tensor([0.5, 0.0, -1.0] if warmth > 0 else [1.0, 0.0, -0.5])
        airlight = airlight.view(3, 1, 1).expand(3, height, width)
        if torch.rand((), generator=generator) < config.airlight_map_share:
            field = perlin_field(height, width, generator, octaves=2, scale=0.6 * max(height, width))
            airlight = airlight * (1 + uniform(*config.airlight_unevenness, generator) * (field - 1))
        return airlight.clamp(0.2, 1)

    def render(self, clear: Tensor, depth: Tensor, generator: torch.Generator) -> Rendered:
        """Render haze onto `clear` [3,H,W] in [0,1] with `depth` [H,W] in [0,1], where 1 is far and the sky is 1."""
        config = self.config
        if isinstance(config, HazeMixture):
            return HazeRenderer(config.draw(generator)).render(clear, depth, generator)
        sky = None
        if config.overcast_share and torch.rand((), generator=generator) < config.overcast_share:
            sky = sky_mask(clear, depth)
        if config.exposure_share and torch.rand((), generator=generator) < config.exposure_share:
            clear = clear ** math.exp(uniform(*map(math.log, config.exposure), generator))
        as_clear, in_linear, darkened, noisy, compressed = torch.rand(5, generator=generator).tolist()
        airlight = self.airlight(*depth.shape, generator)
        if sky is not None:
            clear = overcast(clear, sky, airlight.mean().item())
        if as_clear < config.clear_share:
            return Rendered(clear, clear, torch.ones_like(clear[:1]), airlight)

        t = transmission(self.optical_depth(depth, generator))
        scene = clear
        if darkened < config.gamma_share:
            scene = scene ** uniform(*config.gamma, generator)
        if in_linear < config.linear_share:
            hazy = linear_to_srgb(scatter(srgb_to_linear(scene), t, srgb_to_linear(airlight)))
        else:
            hazy = scatter(scene, t, airlight)
        if noisy < config.noise_share:
            hazy = add_noise(hazy, uniform(*config.noise, generator), generator)
        if compressed < config.jpeg_share:
            hazy = jpeg(hazy, round(uniform(*config.jpeg_quality, generator)))
        return Rendered(hazy, clear, t, airlight)
