"""Train CLIPHaze with L1; the CLIP model that ships instructs it with density and embedding."""

from dataclasses import replace
from functools import partial

from torch import Tensor, nn
from torch.nn import functional as F

from dehaze.density import instruct, load_clip
from dehaze.networks.cliphaze import CLIPHaze, CLIPHazeBase, CLIPHazeConfig
from dehaze.training.recipe import Batch, Recipe


class CLIPHazeObjective(nn.Module):
    """L1 on the restored image; CLIP sees the hazy crop and is not trained."""

    def __init__(self, network: CLIPHaze, average: nn.Module):
        super().__init__()
        self.network, self.clip = network, load_clip(network)

    def forward(self, batch: Batch, progress: float) -> dict[str, Tensor]:
        hazy = batch["hazy"]
        restored = self.network.restore_unclipped(hazy, **instruct(self.network, self.clip, hazy))
        return {"l1": F.l1_loss(restored.float(), batch["clear"])}


SMALL = Recipe(model="cliphaze_t", network=CLIPHaze, objective=CLIPHazeObjective, steps=8_000, learning_rate=1e-3)

RECIPES = {
    "cliphaze_t": SMALL,
    # The large network needs a GPU.
    "cliphaze_b": replace(SMALL, model="cliphaze_b", network=CLIPHazeBase, steps=32_000, batch=16, learning_rate=4e-4),
    # The density mixes the paths, without CLIP's embedding.
    "cliphaze_t_density": replace(SMALL, network=partial(CLIPHaze, CLIPHazeConfig(mix="density"))),
    # The state-space model alone, without local attention and CLIP.
    "cliphaze_t_global": replace(SMALL, network=partial(CLIPHaze, CLIPHazeConfig(mix="global"))),
    # Window attention alone, without global context and CLIP.
    "cliphaze_t_local": replace(SMALL, network=partial(CLIPHaze, CLIPHazeConfig(mix="local"))),
    # The plain sum of both paths, without CLIP.
    "cliphaze_t_sum": replace(SMALL, network=partial(CLIPHaze, CLIPHazeConfig(mix="sum"))),
}
