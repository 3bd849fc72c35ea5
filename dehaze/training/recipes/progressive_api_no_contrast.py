"""Ablation of `progressive_api` without IICL: L1 on every stage alone."""

from dataclasses import replace
from functools import partial

from dehaze.training.recipes.progressive_api import RECIPE as FULL

RECIPE = replace(FULL, objective=partial(FULL.objective, contrast=False))
