"""Train the progressive framework: L1 on every stage, and inter and intra contrast (IICL) in the second half of a run.

The weights, the late start of the contrast and the learned haze in a quarter of the samples are ours. At first all
stages are near the hazy image, and a contrast between them teaches little.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.hub import load_network
from dehaze.networks import NETWORKS
from dehaze.networks.api.network import APIConfig
from dehaze.networks.base import Network
from dehaze.networks.progressive import Progressive, ProgressiveConfig, progressive
from dehaze.training.learned_haze import with_learned_haze
from dehaze.training.recipe import Batch
from dehaze.training.recipes.api import RECIPE as API
from dehaze.training.recipes.draco import RECIPE as DRACO
from dehaze.training.windows import hazy_windows

CONTRAST_START = 0.5  # progress of the run, 0 to 1
CONTRAST_SHARE = 0.25  # of the samples of a batch
CONTRAST_SIDE = 96  # px of the windows that are contrasted
FIRST_STAGE_WEIGHT = 0.5  # the weights of the stages rise linearly to 1


class ProgressiveObjective(nn.Module):
    """L1 on every stage of a network, and IICL on the last.

    `features` is the file of VGG16's weights, or None for torchvision's. With `generator`, a quarter of the samples has
    learned haze. Without `contrast`, the loss is L1 alone. With `frozen`, the backbone is not trained.
    """

    def __init__(
        self,
        network: Network,
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
            assert isinstance(network, Progressive), "no other network has a backbone"
            network.backbone.requires_grad_(False).eval()
        self.generator = self.contrast = None
        self.real_from = 0.0 if generator else None
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
        weights = torch.linspace(1, FIRST_STAGE_WEIGHT, len(stages)).flip(0).tolist()
        zero = clear.new_zeros(())
        terms = {"l1": sum((w * F.l1_loss(stage, clear) for w, stage in zip(weights, stages, strict=True)), zero)}
        if self.contrast is not None:
            terms |= dict.fromkeys(("inter", "intra"), zero)
            if progress >= CONTRAST_START:
                terms |= self._contrast(stages, batch, draws)
        return terms

    def _contrast(self, stages: list[Tensor], batch: Batch, draws: torch.Generator) -> dict[str, Tensor]:
        """Return the terms of IICL for windows of some hazy samples, or no terms if no sample is hazy."""
        chosen, window = hazy_windows(batch, CONTRAST_SHARE, CONTRAST_SIDE, draws)
        if self.contrast is None or not len(chosen):
            return {}
        hazy, clear, *cut = (images[chosen][window] for images in (batch["hazy"], batch["clear"], *stages))
        return self.contrast(hazy, cut, clear)


def make_around_shipped_api() -> Progressive:
    """Make the untrained framework around the trained `api`: freezing an untrained backbone would be useless."""
    # The framework sees two sizes by itself.
    network = progressive(NETWORKS.get("api"))(ProgressiveConfig(backbone=APIConfig(two_sizes=False)))
    network.backbone.load_state_dict(load_network("api", "shipped")[0].state_dict())
    return network


LEARNED = partial(ProgressiveObjective, generator=True)
AROUND_API = replace(API, model="progressive:api", network=NETWORKS.get("progressive:api"), objective=LEARNED)
AROUND_API_L1 = replace(AROUND_API, objective=partial(LEARNED, contrast=False))
# Only the pre-restoration and the gates are trained.
AROUND_FROZEN_API = replace(
    AROUND_API,
    network=make_around_shipped_api,
    objective=partial(LEARNED, frozen=True),
    crop=320,
    batch=4,
    steps=500,
    learning_rate=1e-3,
)
AROUND_DRACO = replace(
    DRACO, model="progressive:draco", network=NETWORKS.get("progressive:draco"), objective=ProgressiveObjective
)
AROUND_DRACO_L1 = replace(AROUND_DRACO, objective=partial(ProgressiveObjective, contrast=False))

# In an ablation "no_contrast" the loss is L1 on every stage; in "plain" the backbone is trained so by itself.
RECIPES = {
    "progressive_api": AROUND_API,
    "progressive_api_no_contrast": AROUND_API_L1,
    "progressive_api_plain": replace(AROUND_API_L1, model="api", network=NETWORKS.get("api")),
    "progressive_api_frozen": AROUND_FROZEN_API,
    "progressive_api_frozen_no_contrast": replace(
        AROUND_FROZEN_API, objective=partial(LEARNED, frozen=True, contrast=False)
    ),
    "progressive_draco": AROUND_DRACO,
    "progressive_draco_no_contrast": AROUND_DRACO_L1,
    "progressive_draco_plain": replace(AROUND_DRACO_L1, model="draco", network=NETWORKS.get("draco")),
}
