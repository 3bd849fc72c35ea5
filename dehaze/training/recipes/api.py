"""The backbone of API's density-aware haze removal: L1 on the image and, a tenth of it, on the haze density."""

from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.training.recipe import Batch, Recipe


def objective(network: nn.Module, batch: Batch) -> dict[str, Tensor]:
    restored, density = network.restore_with_density(batch["hazy"])
    return {
        "l1": F.l1_loss(restored.float(), batch["clear"]),
        "density": 0.1 * F.l1_loss(density.float(), batch["density"]),
    }


RECIPE = Recipe(model="api", objective=objective, steps=12_500)
