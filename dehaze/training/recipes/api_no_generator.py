"""Ablation of `api` without AHG's learned haze: the physical renderer alone."""

from dataclasses import replace
from functools import partial

from dehaze.training.recipes.api import RECIPE as FULL
from dehaze.training.recipes.api import APIObjective

RECIPE = replace(FULL, objective=partial(APIObjective, generator=False))
