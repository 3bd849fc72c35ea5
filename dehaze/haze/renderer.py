"""The physical renderer: from a clear photograph and its depth to a hazy one and its ground truth."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from dehaze.haze.degradation import add_noise, blur, compress_jpeg
from dehaze.haze.fields import brownian_field, draw_ramp, draw_uniform, perlin_field, random_perlin_field
from dehaze.haze.scattering import linear_to_srgb, scatter, srgb_to_linear, transmission
from dehaze.haze.sky import overcast, sky_mask


@dataclass(frozen=True)
class RendererConfig:
    """Ranges of uniform draws, and shares (probabilities) of effects.

    The range of β is a little wider than CORUN's; noise and JPEG are milder than RIDCP's. The rest is ours. RIDCP's
    gamma only darkens, and a network learns from it to brighten every photograph. Without varied exposure, networks
    restore dark scenes too bright and bright scenes too dark. Without overcast skies, they paint blue skies onto haze.
    """

    beta: tuple[float, float] = (0.2, 3.2)  # scattering coefficient times a depth in [0,1]
    base: tuple[float, float] = (0.0, 0.6)  # optical depth in front of the nearest point
    dense_base: tuple[float, float] = (0.5, 2.0)
    depth_gamma: tuple[float, float] = (0.6, 2.5)  # above 1, the haze is mostly in the distance
    airlight: tuple[float, float] = (0.4, 1.0)
    airlight_shift: float = 0.025  # independent for each channel
    airlight_warmth: float = 0.15  # red up and blue down, or the reverse
    airlight_contrast: tuple[float, float] = (0.1, 0.6)  # of an airlight map: haze is lit unevenly
    gamma: tuple[float, float] = (0.75, 1.6)  # of the scene before the haze
    exposure: tuple[float, float] = (0.6, 2.0)  # a gamma of the scene and of its ground truth
    blur: tuple[float, float] = (0.5, 2.0)  # px, of light that is scattered forwards on its way
    noise: tuple[float, float] = (0.5 / 255, 3 / 255)
    jpeg_quality: tuple[float, float] = (75, 95)

    clear_share: float = 0.08  # no haze: input and target are the same
    base_share: float = 0.55  # without a base, the foreground is clear
    dense_share: float = 0.15
    perlin_share: float = 0.2
    brownian_share: float = 0.15
    ramp_share: float = 0.2  # instead of the depth: estimates err, and haze from machines ignores depth
    warm_share: float = 0.5
    airlight_map_share: float = 0.2
    linear_share: float = 0.15  # scattering in linear light, which is physically right, instead of in sRGB values
    gamma_share: float = 0.3
    overcast_share: float = 0.0  # the sky of the ground truth becomes grey, and as bright as the airlight
    exposure_share: float = 0.0
    blur_share: float = 0.0
    noise_share: float = 0.2
    jpeg_share: float = 0.3


@dataclass(frozen=True)
class HazeMixture:
    """Several kinds of haze with their shares (probabilities), which sum to 1 (ours)."""

    kinds: tuple[tuple[float, RendererConfig], ...]

    def __post_init__(self):
        if not math.isclose(total := sum(share for share, _ in self.kinds), 1):
            raise ValueError(f"the shares of a mixture of haze sum to {total:g}; they must sum to 1")

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

    All random numbers come from the given generator, so the same seed gives the same haze. Only `render` takes a
    mixture; `optical_depth` and `airlight` need one kind.
    """

    def __init__(self, config: RendererConfig | HazeMixture | None = None):
        self.config = config or RendererConfig()

    def _kind(self) -> RendererConfig:
        if isinstance(self.config, HazeMixture):
            raise TypeError("a mixture has several kinds of haze: draw one, and render that")
        return self.config

    def optical_depth(self, depth: Tensor, generator: torch.Generator) -> Tensor:
        """Draw an optical depth τ = (β·d^γ + base)·P ≥ 0, [1,H,W], for a depth [H,W] in [0,1], where 1 is far."""
        config, rand = self._kind(), torch.rand(3, generator=generator).tolist()
        height, width = depth.shape
        if rand[0] < config.ramp_share:
            depth = draw_ramp(height, width, generator)
        optical_depth = draw_uniform(*config.beta, generator) * depth ** draw_uniform(*config.depth_gamma, generator)
        if rand[1] < config.base_share + config.dense_share:
            base = config.dense_base if rand[1] < config.dense_share else config.base
            optical_depth = optical_depth + draw_uniform(*base, generator)
        if rand[2] < config.perlin_share:
            optical_depth = optical_depth * random_perlin_field(height, width, generator)
        elif rand[2] < config.perlin_share + config.brownian_share:
            optical_depth = optical_depth * (0.2 + 1.6 * brownian_field(height, width, generator))
        return optical_depth[None]

    def airlight(self, height: int, width: int, generator: torch.Generator) -> Tensor:
        """Draw an airlight map [3,H,W] in [0.2, 1]: grey, warm or cool; uniform or not."""
        config = self._kind()
        airlight = torch.full((3,), draw_uniform(*config.airlight, generator))
        airlight += config.airlight_shift * (2 * torch.rand(3, generator=generator) - 1)
        if torch.rand((), generator=generator) < config.warm_share:
            warmth = draw_uniform(-config.airlight_warmth, config.airlight_warmth, generator)
            airlight += warmth * torch.tensor([0.5, 0.0, -1.0] if warmth > 0 else [1.0, 0.0, -0.5])
        airlight = airlight.view(3, 1, 1).expand(3, height, width)
        if torch.rand((), generator=generator) < config.airlight_map_share:
            field = perlin_field(height, width, generator, octaves=2, scale=0.6 * max(height, width))
            airlight = airlight * (1 + draw_uniform(*config.airlight_contrast, generator) * (field - 1))
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
            low, high = map(math.log, config.exposure)
            clear = clear ** math.exp(draw_uniform(low, high, generator))
        as_clear, in_linear, darkened, noisy, compressed = torch.rand(5, generator=generator).tolist()
        height, width = depth.shape
        airlight = self.airlight(height, width, generator)
        if sky is not None:
            clear = overcast(clear, sky, airlight.mean().item())
        if as_clear < config.clear_share:
            return Rendered(clear, clear, torch.ones_like(clear[:1]), airlight)

        t = transmission(self.optical_depth(depth, generator))
        scene = clear
        if darkened < config.gamma_share:
            scene = scene ** draw_uniform(*config.gamma, generator)
        if config.blur_share and torch.rand((), generator=generator) < config.blur_share:
            scene = blur(scene, draw_uniform(*config.blur, generator), 1 - t)
        if in_linear < config.linear_share:
            hazy = linear_to_srgb(scatter(srgb_to_linear(scene), t, srgb_to_linear(airlight)))
        else:
            hazy = scatter(scene, t, airlight)
        if noisy < config.noise_share:
            hazy = add_noise(hazy, draw_uniform(*config.noise, generator), generator)
        if compressed < config.jpeg_share:
            hazy = compress_jpeg(hazy, round(draw_uniform(*config.jpeg_quality, generator)))
        return Rendered(hazy, clear, t, airlight)
