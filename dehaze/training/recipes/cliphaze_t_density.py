"""Ablation of `cliphaze_t` whose paths are mixed by the density alone, without CLIP's embedding."""

from dataclasses import replace
from functools import partial

from dehaze.networks.cliphaze import CLIPHaze, CLIPHazeConfig
from dehaze.training.recipes.cliphaze_t import RECIPE as FULL

RECIPE = replace(FULL, network=partial(CLIPHaze, CLIPHazeConfig(mix="density")))
