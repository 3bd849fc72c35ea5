"""Train the haze generator: reconstruction, identity and a critic as in API's AHG, and rendered ground truth (ours).

Unlabelled hazy photographs, if given, show the critic real haze, and their densities are rendered onto the clear
photographs of the batch. Pairs without a known density (NH-HAZE, O-HAZE) train all terms but that of the density.
"""

from collections.abc import Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional as F
from torch.nn.utils.parametrizations import spectral_norm

from dehaze.haze import RendererConfig
from dehaze.haze.generator import HazeGenerator
from dehaze.training.recipe import Batch, Recipe
from dehaze.training.validation import psnr, spearman

# Weights of the terms. λ₁ (identity) and λ₂ (adversarial) are ours: the paper's values are not published.
IDENTITY_WEIGHT, ADVERSARIAL_WEIGHT = 1.0, 0.1
DENSITY_WEIGHT, AIRLIGHT_WEIGHT, CYCLE_WEIGHT = 1.0, 0.2, 0.2


class Critic(nn.Module):
    """Classify patches as real or generated haze.

    The critic sees images at 1/4 of the resolution, so that grain and compression do not decide.
    """

    def __init__(self):
        super().__init__()
        layers = [(3, 32, 1), (32, 64, 2), (64, 64, 2)]
        convolutions = (spectral_norm(nn.Conv2d(i, o, 3, stride, padding=1)) for i, o, stride in layers)
        self.layers = nn.Sequential(
            *(layer for convolution in convolutions for layer in (convolution, nn.LeakyReLU(0.2))),
            spectral_norm(nn.Conv2d(64, 1, 3, padding=1)),
        )

    def forward(self, image: Tensor) -> Tensor:
        """Return one logit per patch, [B,1,H/16,W/16]."""
        return self.layers(F.avg_pool2d(image - 0.5, 4))


class GeneratorObjective(nn.Module):
    """The terms of the loss of encoder, decoder and critic; one sum trains all three."""

    def __init__(self, network: HazeGenerator, average: nn.Module):
        super().__init__()
        self.network, self.critic = network, Critic()
        self.real_from = 0.0

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        hazy, clear = batch["hazy"], batch["clear"]
        photos = [clear, hazy, *([batch["real"]] if "real" in batch else [])]
        densities, airlights = self.network.encode_with_airlight(torch.cat(photos))
        densities, airlights = densities.chunk(len(photos)), airlights.chunk(len(photos))
        density = torch.where(batch["density"].isnan(), densities[1].detach(), batch["density"])  # NaN: it is unknown
        airlight, weight = airlight_between(hazy, clear, density)

        # D(C, M_c), D(C, M_h), and the densities of the unlabelled photographs with their own airlight.
        lights = [airlight, airlight, *(found.detach() for found in airlights[2:])]
        rendered = self.network.decode(torch.cat([clear] * len(photos)), torch.cat(densities), torch.cat(lights))
        rendered = rendered.chunk(len(photos))
        generated, examples = torch.cat(rendered[1:]), torch.cat(photos[1:])
        frozen = {key: value.detach() for key, value in self.critic.named_parameters()}
        return {
            "reconstruction": F.l1_loss(rendered[1], hazy),
            "identity": IDENTITY_WEIGHT * F.l1_loss(rendered[0], clear),
            "adversarial": -ADVERSARIAL_WEIGHT * functional_call(self.critic, frozen, (generated,)).float().mean(),
            "critic": ADVERSARIAL_WEIGHT * hinge(self.critic(examples), self.critic(generated.detach())),
            "airlight": AIRLIGHT_WEIGHT * ((airlights[1] - airlight).abs().mean(1) * weight).mean(),
            # The encoder must find the rendered density again, so that the decoder cannot weaken it.
            "cycle": CYCLE_WEIGHT * F.l1_loss(self.network.encode(rendered[-1]), densities[-1].detach()),
            "density": DENSITY_WEIGHT * density_loss(densities[1], density),
        }


def density_loss(density: Tensor, truth: Tensor) -> Tensor:
    """Return the mean absolute error of densities [B,1,H,W] plus that of their deviations from the mean.

    A bright scene resembles a scene in uniform haze, so the mean is ambiguous; the deviations are less so.
    """
    error = density - truth
    return error.abs().mean() + (error - error.mean((2, 3), keepdim=True)).abs().mean()


def airlight_between(hazy: Tensor, clear: Tensor, density: Tensor) -> tuple[Tensor, Tensor]:
    """Return the airlight [B,3] in [0,1] that best explains `hazy` by `clear` and `density`, and its weight [B].

    The airlight is the least-squares fit of the scattering model over the pixels of each image. The weight is 1 in
    dense haze and falls to 0 with the density.
    """
    power = density.square().mean((1, 2, 3))
    explained = ((hazy - clear * (1 - density)) * density).mean((2, 3))
    return (explained / power[:, None].clamp_min(1e-4)).clamp(0, 1), (power / 0.02).clamp(max=1)


def hinge(examples: Tensor, generated: Tensor) -> Tensor:
    """Return the hinge loss of the critic from its logits."""
    return F.relu(1 - examples.float()).mean() + F.relu(1 + generated.float()).mean()


@torch.no_grad()
def validate(network: HazeGenerator, batches: Iterable[Batch]) -> dict[str, float]:
    """Score the generator on rendered haze.

    Returns `density_error`, the mean absolute error of the density; `density_rank`, its rank correlation with the truth
    in images with non-uniform haze; `haze_psnr` and `clear_psnr` in dB, of hazy and of clear images rendered with the
    densities that the encoder finds in them.
    """
    scores: dict[str, list[Tensor]] = {"density_error": [], "density_rank": [], "haze_psnr": [], "clear_psnr": []}
    for batch in batches:
        hazy, clear, density = batch["hazy"], batch["clear"], batch["density"]
        found, found_clear = network.encode(hazy), network.encode(clear)
        airlight, _ = airlight_between(hazy, clear, density)
        scores["density_error"].append((found - density).abs().mean((1, 2, 3)))
        spread = density.std((1, 2, 3)) > 0.02
        scores["density_rank"].append(spearman(*(F.avg_pool2d(x[spread], 8) for x in (found, density))))
        scores["haze_psnr"].append(psnr(network.decode(clear, found, airlight), hazy))
        scores["clear_psnr"].append(psnr(network.decode(clear, found_clear, airlight), clear))
    return {key: round(torch.cat(values).mean().item(), 4) for key, values in scores.items()}


@torch.no_grad()
def show(network: HazeGenerator, batch: Batch) -> dict[str, Tensor]:
    """Return the columns of the sample sheet: the truth, what the generator makes of it, and the density it finds."""
    device = next(network.parameters()).device
    height, width = (length - length % network.multiple_of for length in batch["hazy"].shape[-2:])
    hazy = batch["hazy"][..., :height, :width].to(device)
    density, airlight = network.encode_with_airlight(hazy)
    clear = batch["clear"][..., :height, :width].to(device) if "clear" in batch else hazy
    return {"hazy": hazy, "clear": clear, "rendered": network.decode(clear, density, airlight), "density": density}


RECIPE = Recipe(
    model="ahg",
    network=HazeGenerator,
    objective=GeneratorObjective,
    validate=validate,
    show=show,
    best="haze_psnr",
    steps=2000,
    # No density explains noise and compression, and darkened scenes only in part.
    renderer=RendererConfig(gamma_share=0.25, noise_share=0.1, jpeg_share=0.2),
    crop=160,
)

RECIPES = {"ahg": RECIPE}
