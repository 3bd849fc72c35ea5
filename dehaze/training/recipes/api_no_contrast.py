"""Ablation of `api` without MNCD: L1 and the density alone."""

from dataclasses import replace
from functools import partial

from dehaze.training.recipes.api import RECIPE as FULL
from dehaze.training.recipes.api import APIObjective

RECIPE = replace(FULL, objective=partial(APIObjective, contrast=False))
