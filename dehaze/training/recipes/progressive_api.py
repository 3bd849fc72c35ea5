"""The progressive framework around `api`: L1 on every stage, and inter and intra contrast in the second half.

Weights of the stages and of the contrasts are ours, and so is the late start: a contrast with stages that are all near
the hazy image says little. So is the learned haze in a quarter of the samples, as `api` has it.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.networks import NETWORKS
from dehaze.training.learned_haze import with_learned_haze
from dehaze.training.recipe import Batch
from dehaze.training.recipes.api import RECIPE as API
from dehaze.training.windows import hazy_windows

CONTRAST_FROM, CONTRAST_SHARE, CONTRAST_SIZE = 0.5, 0.25, 96
FIRST_STAGE = 0.5  # its weight; that of the last is 1, and between them it rises evenly


class ProgressiveObjective(nn.Module):
    """L1 on every stage of a network, and IICL on the last.

    `features` is the file of VGG16's weights, or None for torchvision's. With `generator` a quarter of the samples has
    learned haze. Without `contrast` the loss is L1 alone; so the framework is measured without IICL, and its backbone
    without the framework. With `frozen` the backbone stays as it is, and what is around it learns.
    """

    def __init__(
        self,
        network: nn.Module,
        average: nn.Module,
        features: Path | None = None,
        *,
        generator: bool = False,
        contrast: bool = True,
        frozen: bool = False,
    ):
        super().__init__()
        self.network = network
        if frozen:
            network.backbone.requires_grad_(False).eval()
        self.generator = self.contrast = None
        if generator:
            from dehaze.haze.generator import load_generator

            self.generator = load_generator().requires_grad_(False)
        if contrast:
            from dehaze.training.losses.features import get_features
            from dehaze.training.losses.iicl import IICL

            self.contrast = IICL(get_features("vgg16", features))

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        draws = torch.Generator().manual_seed(int(batch["index"][0]))  # so that a resumed run draws the same
        if self.generator is not None:
            batch = with_learned_haze(batch, self.generator, draws)
        clear = batch["clear"]
        stages = [stage.float() for stage in self.network.stages(batch["hazy"])]
        weights = torch.linspace(1, FIRST_STAGE, len(stages)).flip(0).tolist()
        terms = {"l1": sum(w * F.l1_loss(stage, clear) for w, stage in zip(weights, stages, strict=True))}
        if self.contrast is not None:
            terms |= dict.fromkeys(("inter", "intra"), clear.new_zeros(()))
            if progress >= CONTRAST_FROM:
                terms |= self._contrast(stages, batch, draws)
        return terms

    def _contrast(self, stages: list[Tensor], batch: Batch, draws: torch.Generator) -> dict[str, Tensor]:
        """Contrast some of the hazy samples, in windows, where there are any."""
        chosen, window = hazy_windows(batch, CONTRAST_SHARE, CONTRAST_SIZE, draws)
        if not len(chosen):
            return {}
        hazy, clear, *cut = (images[chosen][window] for images in (batch["hazy"], batch["clear"], *stages))
        return self.contrast(hazy, cut, clear)


RECIPE = replace(API, network=NETWORKS.get("progressive:api"), objective=partial(ProgressiveObjective, generator=True))
