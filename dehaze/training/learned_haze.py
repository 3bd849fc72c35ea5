"""Learned haze in place of the physical renderer's, for recipes that train on both."""

import torch

from dehaze.haze.generator import HazeGenerator
from dehaze.training.recipe import Batch

SHARE = 0.25  # of a batch; physical haze, whose truth is known, stays the greater part (ours)


@torch.no_grad()
def with_learned_haze(batch: Batch, generator: HazeGenerator, draws: torch.Generator) -> Batch:
    """Replace the haze of a quarter of the samples by the generator's, density and airlight taken from real haze.

    They are the first of the batch, at least one of them. Without real haze in the batch it is taken from the rendered.
    """
    count = max(1, round(SHARE * len(batch["clear"])))
    source = batch.get("real", batch["hazy"])[-count:]  # never of the same scene, unless there is but one
    hazy, density = generator.rehaze(batch["clear"][:count], source, draws)
    replaced = {"hazy": hazy, "density": density}
    return {
        key: torch.cat([replaced[key].to(value.dtype), value[count:]]) if key in replaced else value
        for key, value in batch.items()
    }
