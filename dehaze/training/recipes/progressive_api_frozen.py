"""The progressive framework around `api` as it ships, which stays as it is: PRM and gates alone learn."""

from dataclasses import replace
from functools import partial

from dehaze.hub import load_network
from dehaze.networks.progressive import Progressive
from dehaze.training.recipes.progressive_api import RECIPE as FULL


def around_shipped_weights() -> Progressive:
    """Return the framework, untrained, around the trained backbone: a frozen one of random weights would be useless."""
    network = FULL.network()
    network.backbone.load_state_dict(load_network("api", "shipped")[0].state_dict())
    return network


RECIPE = replace(
    FULL,
    network=around_shipped_weights,
    objective=partial(FULL.objective, frozen=True),
    crop=320,
    batch=4,
    steps=500,
    learning_rate=1e-3,
)
