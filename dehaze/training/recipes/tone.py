"""Train the tone head on clear photographs that are exposed wrongly (all ours).

A camera that exposes for haze leaves the scene behind it too dark, and removing haze leaves it darker still or hazy in
part. So the scene of each sample is darkened, hazed, and restored with errors; the photograph as taken is the target.
"""

from collections.abc import Iterable
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.filters.colour import luminance
from dehaze.haze import RendererConfig
from dehaze.tone import ToneHead, toned
from dehaze.training.recipe import Batch, Recipe
from dehaze.training.validation import psnr

MEAN_WEIGHT = 0.2
UNKNOWN_SHARE = 0.15  # of the batches, whose density the network is not told


@dataclass(frozen=True)
class ExposureErrors:
    """How wrongly the scene behind haze is exposed, and how badly it is restored.

    Exposure errs by a gamma and a gain. Both errors grow with the square of the mean density, since thin haze hardly
    changes what a camera does; the values hold for a mean density of one half and more.
    """

    darkening: float = 0.45  # mean of the logarithm of the gamma, which is normal
    darkening_spread: float = 0.15
    gamma: tuple[float, float] = (0.8, 2.2)  # limits
    min_gain: float = 0.95  # of a uniform gain up to 1
    haze_left: float = 0.05  # mean share of the haze that is left, which is normal; below 0, too much was removed
    haze_left_spread: float = 0.1
    opaque_power: float = 4.0  # of the density: the share of a place that nothing can restore
    density_spread: float = 0.2  # of the logarithm of the estimated density's error


@dataclass(frozen=True)
class Exposed:
    """A wrongly exposed scene behind haze, as the network sees it, and what is asked for; all in [0,1]."""

    hazy: Tensor  # [B,3,h,w]
    restored: Tensor  # [B,3,h,w]
    density: Tensor  # as estimated [B,1,h,w]
    target: Tensor  # [B,3,h,w]: as taken, and as restored where the haze is opaque


def expose_wrongly(batch: Batch, errors: ExposureErrors = ExposureErrors()) -> Exposed:
    """Expose the clear images of a batch wrongly, put them behind their haze, and restore them with errors.

    The draws of a sample depend on its `index` alone.
    """
    hazy, clear, density = batch["hazy"], batch["clear"], batch["density"]
    generators = [torch.Generator().manual_seed(int(index)) for index in batch["index"]]
    draws = torch.stack([torch.randn(5, generator=generator) for generator in generators]).clamp(-2.5, 2.5)
    for_gamma, for_gain, for_haze, for_density, for_base = draws.to(clear).T[..., None, None, None]
    severity = (2 * density.mean((1, 2, 3), keepdim=True)).square().clamp_max(1)
    gamma = (severity * (errors.darkening + errors.darkening_spread * for_gamma)).exp().clamp(*errors.gamma)
    gain = 1 - severity * (1 - errors.min_gain) * torch.special.ndtr(for_gain)
    scene = gain * clear.clamp_min(1e-6) ** gamma
    hazy = (hazy + (1 - density) * (scene - clear)).clamp(0, 1)
    opaque = density**errors.opaque_power
    restored = torch.lerp(scene, hazy, errors.haze_left + errors.haze_left_spread * for_haze)
    restored = torch.lerp(restored, hazy, opaque).clamp(0, 1)
    estimated = density * (errors.density_spread * for_density).exp() + 0.1 * errors.density_spread * for_base
    return Exposed(hazy, restored, estimated.clamp(0, 1), torch.lerp(clear, restored, opaque))


class ToneObjective(nn.Module):
    """Compare luminance after the curve with that of the photograph as taken, by pixels and in the mean."""

    def __init__(self, network: ToneHead, average: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        seen = expose_wrongly(batch)
        told = torch.rand((), generator=torch.Generator().manual_seed(int(batch["index"][0]))) >= UNKNOWN_SHARE
        curve = self.network(seen.hazy, seen.restored, seen.density if told else None)
        result, truth = luminance(toned(seen.restored, curve)), luminance(seen.target)
        return {
            "luminance": F.l1_loss(result, truth),
            "mean": MEAN_WEIGHT * F.l1_loss(mean_logarithm(result), mean_logarithm(truth)),
        }


def mean_logarithm(image: Tensor) -> Tensor:
    """Return the mean logarithm [B] of luminance [B,1,h,w] in [0,1]; black counts as 0.05."""
    return (image + 0.05).log().mean((1, 2, 3))


@torch.no_grad()
def validate(network: ToneHead, batches: Iterable[Batch]) -> dict[str, float]:
    """Score the curves on wrongly exposed scenes.

    Returns mean PSNRs in dB: before the curve (`exposed`) and after (`toned`), and of scenes that were restored
    perfectly, at the right exposure (`harm`); and `error`, the mean absolute error of the mean logarithm after.
    """
    scores: dict[str, list[Tensor]] = {"exposed": [], "toned": [], "harm": [], "error": []}
    for batch in batches:
        clear, seen = batch["clear"], expose_wrongly(batch)
        result = toned(seen.restored, network(seen.hazy, seen.restored, seen.density))
        scores["exposed"].append(psnr(seen.restored, seen.target))
        scores["toned"].append(psnr(result, seen.target))
        scores["harm"].append(psnr(toned(clear, network(batch["hazy"], clear, batch["density"])), clear))
        scores["error"].append((mean_logarithm(luminance(result)) - mean_logarithm(luminance(seen.target))).abs())
    return {key: round(torch.cat(values).mean().item(), 4) for key, values in scores.items()}


@torch.no_grad()
def show(network: ToneHead, batch: Batch) -> dict[str, Tensor]:
    """Return the columns of the sample sheet: hazy, restored at a wrong exposure, after the curve, and as taken."""
    batch = {key: value.to(network.cosines.device) for key, value in batch.items()}
    seen = expose_wrongly(batch)
    result = toned(seen.restored, network(seen.hazy, seen.restored, seen.density))
    return {"hazy": seen.hazy, "restored": seen.restored, "toned": result, "clear": batch["clear"]}


RECIPE = Recipe(
    model="tone",
    network=ToneHead,
    objective=ToneObjective,
    validate=validate,
    show=show,
    best="toned",
    needs_density=True,
    steps=2500,
    # Whole photographs, since exposure is a matter of the whole. The scene is darkened by the objective.
    renderer=RendererConfig(gamma_share=0, linear_share=0, noise_share=0, jpeg_share=0),
    crop=64,
    smallest_crop=1.0,
    batch=16,
)

RECIPES = {"tone": RECIPE}
