"""`draco` with the quadruplet loss as its authors coded it, which pulls the result to the hazy image."""

from dataclasses import replace
from functools import partial

from dehaze.training.recipes.draco import RECIPE as INTENT
from dehaze.training.recipes.draco import DRACOObjective

RECIPE = replace(INTENT, objective=partial(DRACOObjective, quadruplet="published"))
