"""API in full: density-aware removal, learned haze from half of the run on, multi-negative contrast at its end.

The contrast costs as much as all the rest, and sharpens what L1 has brought near: the last fifth is where it pays
(ours). The learned generator joins when the network knows the physical haze, which stays the greater part.
"""

from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.haze import HazeMixture, RendererConfig
from dehaze.networks.api.network import API
from dehaze.training.learned_haze import with_learned_haze
from dehaze.training.recipe import Batch, Recipe
from dehaze.training.windows import hazy_windows

GENERATED_FROM = 0.5
CONTRAST_FROM, CONTRAST_SHARE, CONTRAST_SIZE = 0.8, 0.25, 96
CONTRAST = 0.002  # of either half; more lowers PSNR, and clear photographs are harmed
REHAZED = 3  # negatives from the generator


class APIObjective(nn.Module):
    """L1 weighted by the importance of the patches, a tenth of L1 on the density where it is known, and MNCD.

    `features` is the file of VGG16's weights, or None for torchvision's. Without `generator`, haze is the physical
    renderer's alone and the negatives are the hazy image and the moving average's result; without `contrast` the loss
    ends with the density.
    """

    def __init__(
        self,
        network: API,
        average: API,
        features: Path | None = None,
        *,
        generator: bool = True,
        contrast: bool = True,
    ):
        super().__init__()
        self.network, self.average = network, average
        self.generator = self.contrast = None
        if generator:
            from dehaze.haze.generator import load_generator

            self.generator = load_generator().requires_grad_(False)
        if contrast:
            from dehaze.training.losses.features import get_features
            from dehaze.training.losses.mncd import MNCD

            self.contrast = MNCD(get_features("vgg16", features), spatial=CONTRAST, frequency=CONTRAST)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        draws = torch.Generator().manual_seed(int(batch["index"][0]))  # so that a resumed run draws the same
        if self.generator is not None and progress >= GENERATED_FROM:
            batch = with_learned_haze(batch, self.generator, draws)
        hazy, clear = batch["hazy"], batch["clear"]
        maps, importance = self.network.predict(hazy)
        restored, density = self.network.apply_maps(hazy, maps)
        restored = restored.float()
        error = (restored - clear).abs()
        if importance is not None:
            weight = importance.detach().float()
            error = error * F.interpolate(weight / weight.mean(), size=error.shape[-2:], mode="nearest")
        terms = {"l1": error.mean()}
        if "density" in batch:
            error_of_density = (density.float() - batch["density"]).nan_to_num(0)  # NaN: nobody knows it
            terms["density"] = 0.1 * error_of_density.abs().mean()
        if self.contrast is not None:
            terms |= dict.fromkeys(("spatial", "frequency"), error.new_zeros(()))
            if progress >= CONTRAST_FROM:
                terms |= self._contrast(restored, batch, draws)
        return terms

    def _contrast(self, restored: Tensor, batch: Batch, draws: torch.Generator) -> dict[str, Tensor]:
        """Contrast some of the hazy samples, in windows, where there are any."""
        chosen, window = hazy_windows(batch, CONTRAST_SHARE, CONTRAST_SIZE, draws)
        if not len(chosen):
            return {}
        hazy, clear = batch["hazy"][chosen], batch["clear"][chosen][window]
        with torch.no_grad():
            negatives = [hazy[window], self.average(hazy)[window].float()]
            if self.generator is not None:
                source = batch.get("real", batch["hazy"])[: len(chosen)][window]
                negatives += [self.generator.rehaze(clear, source, draws)[0].float() for _ in range(REHAZED)]
        return self.contrast(restored[chosen][window], clear, negatives)


# How bright the scene is has to be seen through the haze: most scenes are darker or brighter than they were taken, and
# none is to be brightened. Half of the skies are overcast: a blue one painted onto haze is seldom true, and blotched.
# Half of the images are compressed, many as strongly as photographs from the web are.
DENSE = RendererConfig(
    beta=(0.5, 3.5),
    base=(0.0, 0.8),
    clear_share=0.06,
    dense_share=0.25,
    overcast_share=0.5,
    exposure_share=0.8,
    exposure=(0.6, 2.5),
    gamma_share=0,
    airlight_warmth=0.25,
    airlight_shift=0.05,
    jpeg_share=0.5,
    jpeg_quality=(45, 95),
)
# Dust, smoke and the light of lamps: strongly coloured, and the scene is not.
COLOURED = replace(
    DENSE,
    beta=(0.3, 3.0),
    base_share=0.7,
    dense_share=0.15,
    clear_share=0,
    airlight=(0.5, 0.95),
    warm_share=0.75,
    airlight_warmth=0.45,
    airlight_shift=0.1,
    overcast_share=0.6,
    exposure=(0.6, 1.6),
)
# As from machines: uneven, nearly grey, in scenes well exposed.
MACHINE = replace(
    DENSE,
    airlight=(0.6, 1.0),
    airlight_warmth=0.1,
    airlight_shift=0.03,
    airlight_map_share=0.1,
    perlin_share=0.35,
    brownian_share=0.35,
    ramp_share=0.4,
    overcast_share=0,
    exposure=(0.5, 1.3),
    jpeg_share=0.2,
)
# Thin, nearly even, nearly grey and under a bright sky, in ranges around RESIDE's. It hides how bright its airlight is,
# so what it took has to be learned from what is common.
THIN = replace(
    DENSE,
    beta=(0.1, 1.2),
    base=(0.05, 0.7),
    base_share=1,
    dense_share=0,
    airlight=(0.8, 1.05),  # at 1 it clips
    airlight_warmth=0.1,
    airlight_shift=0.02,
    airlight_map_share=0.1,
    perlin_share=0.1,
    brownian_share=0.1,
    overcast_share=0.25,
    noise_share=0.1,
    jpeg_share=0.2,
    jpeg_quality=(75, 95),
)
# Rooms, as far as photographs from outside can show them: dark scenes under a white airlight.
ROOM = replace(
    THIN,
    beta=(0.3, 1.5),
    base=(0.05, 0.4),
    depth_gamma=(0.7, 1.6),
    airlight=(1.0, 1.05),
    warm_share=0,
    airlight_map_share=0,
    clear_share=0,
    overcast_share=0,
    exposure_share=1,
    exposure=(1.1, 3.0),
)

RECIPE = Recipe(
    network=API,
    objective=APIObjective,
    renderer=HazeMixture(((0.22, DENSE), (0.12, COLOURED), (0.12, MACHINE), (0.46, THIN), (0.08, ROOM))),
    pair_share=0.2,  # pseudo-labels keep what the network does to real haze
    smallest_crop=0.35,  # photographs to restore are larger than those to train on
    steps=8_000,
    learning_rate=5e-4,
)
