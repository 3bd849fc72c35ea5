"""Train DRACO-DehazeNet with MAE, SSIM and the quadruplet loss in the form that the paper's text describes.

Adam and its rate are the authors'. Crops have 128 px instead of 256 px (ours): the receptive field is some 15 px.
"""

from dataclasses import replace
from functools import partial
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.networks.draco import DRACO
from dehaze.training.losses.features import get_features
from dehaze.training.losses.quadruplet import Quadruplet
from dehaze.training.losses.ssim import ssim
from dehaze.training.recipe import Batch, Recipe

QUADRUPLET_WEIGHT = 0.1


class DRACOObjective(nn.Module):
    """MAE(J₂, C) + (1 − SSIM(J₂, C)) + 0.1 · quadruplet loss, whose form is `quadruplet`.

    `features` is the file of VGG16's weights, or None for torchvision's. Its second convolution, as large as that of
    the authors' VGG19, is the frozen part of the quadruplet loss. The encoders before it are trained with the network.
    """

    def __init__(self, network: DRACO, average: nn.Module, features: Path | None = None, *, quadruplet: str = "intent"):
        super().__init__()
        self.network = network
        self.quadruplet = Quadruplet(get_features("vgg16", features, last="relu1_2").backbone[2:], quadruplet)
        self.critic = self.quadruplet.encoders  # checkpoints keep it with the network

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        hazy, clear = batch["hazy"], batch["clear"]
        first, second = (stage.float() for stage in self.network.stages(hazy))
        return {
            "l1": F.l1_loss(second, clear),
            "ssim": 1 - ssim(second, clear).mean(),
            "quadruplet": QUADRUPLET_WEIGHT * self.quadruplet(hazy, first, second, clear),
        }


RECIPE = Recipe(
    model="draco",
    network=DRACO,
    objective=DRACOObjective,
    steps=8_000,
    crop=128,
    learning_rate=1e-3,
    weight_decay=0.0,
)

RECIPES = {
    "draco": RECIPE,
    # The loss of the authors' code, which pulls the result to the hazy image.
    "draco_published": replace(RECIPE, objective=partial(DRACOObjective, quadruplet="published")),
}
