"""Ablation of `progressive_draco` without IICL: L1 on every stage alone."""

from dataclasses import replace
from functools import partial

from dehaze.training.recipes.progressive_api import ProgressiveObjective
from dehaze.training.recipes.progressive_draco import RECIPE as FULL

RECIPE = replace(FULL, objective=partial(ProgressiveObjective, contrast=False))
