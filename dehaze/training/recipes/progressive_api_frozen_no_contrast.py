"""Ablation of `progressive_api_frozen` without IICL: L1 on every stage alone."""

from dataclasses import replace
from functools import partial

from dehaze.training.recipes.progressive_api_frozen import RECIPE as FULL

RECIPE = replace(FULL, objective=partial(FULL.objective, contrast=False))
