"""Replace physical haze by learned haze in part of a batch, for recipes that train on both."""

import torch

from dehaze.haze.generator import HazeGenerator
from dehaze.training.recipe import Batch

LEARNED_SHARE = 0.25  # of a batch (ours); physical haze stays the larger part, because its ground truth is exact


@torch.no_grad()
def with_learned_haze(batch: Batch, generator: HazeGenerator, draws: torch.Generator) -> Batch:
    """Render the haze of real photographs onto the first quarter of the samples, at least onto one.

    If the batch has no real photographs, density and airlight come from its rendered samples.
    """
    count = max(1, round(LEARNED_SHARE * len(batch["clear"])))
    source = batch.get("real", batch["hazy"])[-count:]  # another scene, unless there is only one
    hazy, density = generator.rehaze(batch["clear"][:count], source, draws)
    replaced = {"hazy": hazy, "density": density}
    return {
        key: torch.cat([replaced[key].to(value.dtype), value[count:]]) if key in replaced else value
        for key, value in batch.items()
    }
