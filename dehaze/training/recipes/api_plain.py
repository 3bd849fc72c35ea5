"""`api` with neither learned haze nor MNCD: L1 and the density on the physical renderer's haze alone."""

from dataclasses import replace
from functools import partial

from dehaze.training.recipes.api import RECIPE as FULL
from dehaze.training.recipes.api import APIObjective

RECIPE = replace(FULL, objective=partial(APIObjective, generator=False, contrast=False))
