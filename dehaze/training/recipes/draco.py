"""DRACO-DehazeNet with its loss: MAE, SSIM, and a tenth of the quadruplet loss as the paper's text means it.

Layers, Adam and its rate are the authors'. They train on 256² px; here on crops of half the side, since the network
sees but some 15 px around each and costs 15 G multiply-adds on 256² (ours).
"""

from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.networks.draco import DRACO
from dehaze.training.losses.features import get_features
from dehaze.training.losses.quadruplet import Quadruplet
from dehaze.training.losses.ssim import ssim
from dehaze.training.recipe import Batch, Recipe

QUADRUPLET = 0.1


class DRACOObjective(nn.Module):
    """MAE(J₂, C) + (1 − SSIM(J₂, C)) + 0.1 of the quadruplet loss of this form.

    `features` is the file of VGG16's weights, or None for torchvision's: its second convolution, of the size of the
    authors' VGG19, is the frozen part of the quadruplet loss; the encoders before it are trained beside the network.
    """

    def __init__(self, network: DRACO, average: nn.Module, features: Path | None = None, *, quadruplet: str = "intent"):
        super().__init__()
        self.network = network
        self.quadruplet = Quadruplet(get_features("vgg16", features, last="relu1_2").backbone[2:], quadruplet)
        self.critic = self.quadruplet.encoders  # what checkpoints keep beside the network

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        hazy, clear = batch["hazy"], batch["clear"]
        first, second = (stage.float() for stage in self.network.stages(hazy))
        return {
            "l1": F.l1_loss(second, clear),
            "ssim": 1 - ssim(second, clear).mean(),
            "quadruplet": QUADRUPLET * self.quadruplet(hazy, first, second, clear),
        }


RECIPE = Recipe(network=DRACO, objective=DRACOObjective, steps=8_000, crop=128, learning_rate=1e-3, weight_decay=0.0)
