"""Ablation of `progressive_api` without IICL: L1 on every stage alone."""

from dataclasses import replace
from functools import partial

from dehaze.training.recipes.progressive_api import RECIPE as FULL
from dehaze.training.recipes.progressive_api import ProgressiveObjective

RECIPE = replace(FULL, objective=partial(ProgressiveObjective, generator=True, contrast=False))
