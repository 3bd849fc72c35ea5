"""CLIPHaze, small: L1, with density and embedding from the CLIP model that ships."""

from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.networks.cliphaze import CLIPHaze
from dehaze.training.recipe import Batch, Recipe


class CLIPHazeObjective(nn.Module):
    """L1 on the restored image; CLIP instructs from the hazy crop, and is not trained."""

    def __init__(self, network: CLIPHaze, average: nn.Module):
        super().__init__()
        self.network = network

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        return {"l1": F.l1_loss(self.network.restore(batch["hazy"]).float(), batch["clear"])}


RECIPE = Recipe(network=CLIPHaze, objective=CLIPHazeObjective, steps=8_000, learning_rate=1e-3)
