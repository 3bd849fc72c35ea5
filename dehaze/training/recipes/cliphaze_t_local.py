"""Ablation of `cliphaze_t` with window attention alone: no global context, and no CLIP."""

from dataclasses import replace
from functools import partial

from dehaze.networks.cliphaze import CLIPHaze, CLIPHazeConfig
from dehaze.training.recipes.cliphaze_t import RECIPE as FULL

RECIPE = replace(FULL, network=partial(CLIPHaze, CLIPHazeConfig(mix="local")))
