"""Ablation of `api` without importance: every patch passes through the dense experts, and counts alike."""

from dataclasses import replace
from functools import partial

from dehaze.networks.api.network import API, APIConfig
from dehaze.training.recipes.api import RECIPE as FULL

RECIPE = replace(FULL, network=partial(API, APIConfig(importance=False)))
