"""The backbone of `progressive_api` by itself, trained as the framework is without IICL."""

from dataclasses import replace

from dehaze.networks import NETWORKS
from dehaze.training.recipes.progressive_api_no_contrast import RECIPE as WRAPPED

RECIPE = replace(WRAPPED, network=NETWORKS.get("api"))
