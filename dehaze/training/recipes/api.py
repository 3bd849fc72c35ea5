"""Train API: density-aware removal, learned haze in the second half of a run, contrast (MNCD) in its last fifth.

The contrast costs as much as the rest of a step and only sharpens what L1 has learned, so it starts late (ours). The
learned generator joins when the network has learned the physical haze, which stays the larger part.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.filters.colour import luminance
from dehaze.filters.flatness import flatness, local_deviation
from dehaze.haze import HazeMixture, RendererConfig
from dehaze.networks.api.network import API, APIConfig
from dehaze.training.learned_haze import with_learned_haze
from dehaze.training.recipe import Batch, Recipe
from dehaze.training.windows import hazy_windows

GENERATOR_START = 0.5  # progress of the run, 0 to 1
CONTRAST_START = 0.8  # progress of the run, 0 to 1
CONTRAST_SHARE = 0.25  # of the samples of a batch
CONTRAST_SIDE = 96  # px of the windows that are contrasted
CONTRAST_WEIGHT = 0.002  # of either half of MNCD; more lowers PSNR and harms clear photographs
DENSITY_WEIGHT = 0.1
FLAT_WEIGHT = 0.5
FLAT_RADIUS = 3  # px
FLAT_DEVIATION, TEXTURED_DEVIATION = 0.006, 0.020  # local deviation in [0,1] of what is flat, and of what is not
GENERATED_NEGATIVES = 3


def flat_error(restored: Tensor, clear: Tensor) -> Tensor:
    """Return the mean error of chroma and of gradients where `clear` [B,3,H,W] is flat, as skies are (ours).

    Errors there are small, but a grey sky that turns blue, or grain in it, is what one sees first.
    """
    deviation = local_deviation(clear, FLAT_RADIUS)
    flat = flatness(deviation, FLAT_RADIUS, FLAT_DEVIATION, TEXTURED_DEVIATION)
    error = restored - clear
    chroma = (error - luminance(error)).abs()
    down, right = (error.diff(dim=axis).abs() for axis in (2, 3))
    return (chroma * flat).mean() + (down * flat[:, :, 1:]).mean() + (right * flat[..., 1:]).mean()


class APIObjective(nn.Module):
    """L1 weighted by the importance of the patches, L1 on flat regions and on the density where it is known, and MNCD.

    `features` is the file of VGG16's weights, or None for torchvision's. Without `generator`, all haze is physical, and
    the negatives are the hazy image and the result of the moving average. Without `contrast`, there is no MNCD.
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
        self.real_from = GENERATOR_START if generator else None
        if generator:
            from dehaze.haze.generator import load_generator

            self.generator = load_generator().requires_grad_(False)
        if contrast:
            from dehaze.training.losses.features import get_features
            from dehaze.training.losses.mncd import MNCD

            self.contrast = MNCD(get_features("vgg16", features), spatial=CONTRAST_WEIGHT, frequency=CONTRAST_WEIGHT)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        draws = torch.Generator().manual_seed(int(batch["index"][0]))  # so that a resumed run draws the same
        if self.generator is not None and progress >= GENERATOR_START:
            batch = with_learned_haze(batch, self.generator, draws)
        hazy, clear = batch["hazy"], batch["clear"]
        maps, importance = self.network.predict(hazy)
        restored, density = self.network.apply_maps(hazy, maps)
        restored = restored.float()
        error = (restored - clear).abs()
        if importance is not None:
            weight = importance.detach().float()
            error = error * F.interpolate(weight / weight.mean(), size=error.shape[-2:], mode="nearest")
        terms = {"l1": error.mean(), "flat": FLAT_WEIGHT * flat_error(restored, clear)}
        if "density" in batch:
            error_of_density = (density.float() - batch["density"]).nan_to_num(0)  # NaN: it is unknown
            terms["density"] = DENSITY_WEIGHT * error_of_density.abs().mean()
        if self.contrast is not None:
            terms |= dict.fromkeys(("spatial", "frequency"), error.new_zeros(()))
            if progress >= CONTRAST_START:
                terms |= self._contrast(restored, batch, draws)
        return terms

    def _contrast(self, restored: Tensor, batch: Batch, draws: torch.Generator) -> dict[str, Tensor]:
        """Return the terms of MNCD for windows of some hazy samples, or no terms if no sample is hazy."""
        chosen, window = hazy_windows(batch, CONTRAST_SHARE, CONTRAST_SIDE, draws)
        if self.contrast is None or not len(chosen):
            return {}
        hazy, clear = batch["hazy"][chosen], batch["clear"][chosen][window]
        with torch.no_grad():
            negatives = [hazy[window], self.average(hazy)[window].float()]
            if self.generator is not None:
                source = batch.get("real", batch["hazy"])[: len(chosen)][window]
                for _ in range(GENERATED_NEGATIVES):
                    negatives.append(self.generator.rehaze(clear, source, draws)[0].float())
        return self.contrast(restored[chosen][window], clear, negatives)


# The network must judge the brightness of a scene through the haze, so most exposures vary and no gamma brightens.
# Half of the skies are overcast, so that the network does not paint blue skies onto haze. Half of the images are
# compressed, many as strongly as photographs from the web.
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
    blur_share=0.5,
    jpeg_share=0.5,
    jpeg_quality=(45, 95),
)
# Dust, smoke and lamplight: strongly coloured haze over scenes of ordinary colour.
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
# Haze from machines: non-uniform, nearly grey, in well exposed scenes.
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
# Thin haze: nearly uniform, nearly grey, bright airlight, in ranges around RESIDE's. The image does not show how bright
# the airlight is, so its range is narrow.
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
# Rooms, imitated with outdoor photographs: dark scenes under a white airlight.
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
    model="api",
    network=API,
    objective=APIObjective,
    renderer=HazeMixture(((0.18, DENSE), (0.08, COLOURED), (0.18, MACHINE), (0.42, THIN), (0.14, ROOM))),
    pair_share=0.2,  # pseudo-labels preserve what the network does to real haze
    smallest_crop=0.35,  # photographs to restore are larger than the training photographs
    steps=8_000,
    learning_rate=5e-4,
)

RECIPES = {
    "api": RECIPE,
    "api_no_contrast": replace(RECIPE, objective=partial(APIObjective, contrast=False)),
    # All haze is physical.
    "api_no_generator": replace(RECIPE, objective=partial(APIObjective, generator=False)),
    # Every patch passes through the dense experts and has the same weight in the loss.
    "api_no_importance": replace(RECIPE, network=partial(API, APIConfig(importance=False))),
    # L1 and density on physical haze.
    "api_plain": replace(RECIPE, objective=partial(APIObjective, generator=False, contrast=False)),
}
