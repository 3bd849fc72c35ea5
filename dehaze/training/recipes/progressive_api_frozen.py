"""The progressive framework around an `api` that is trained already: begin with its weights, which stay as they are."""

from dataclasses import replace
from functools import partial

from dehaze.training.recipes.progressive_api import RECIPE as FULL
from dehaze.training.recipes.progressive_api import ProgressiveObjective

OBJECTIVE = partial(ProgressiveObjective, generator=True, frozen=True)
RECIPE = replace(FULL, objective=OBJECTIVE, crop=320, batch=4, steps=500, learning_rate=1e-3)
