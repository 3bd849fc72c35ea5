"""CLIPHaze, large, for a GPU: the recipe of `cliphaze_t` with twice the batch, four times the steps, a lower rate."""

from dataclasses import replace

from dehaze.networks.cliphaze import CLIPHazeBase
from dehaze.training.recipes.cliphaze_t import RECIPE as SMALL

RECIPE = replace(SMALL, network=CLIPHazeBase, steps=32_000, batch=16, learning_rate=4e-4)
