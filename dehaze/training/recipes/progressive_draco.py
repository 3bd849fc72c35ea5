"""The progressive framework around `draco`, trained as the one around `api`."""

from dataclasses import replace

from dehaze.networks import NETWORKS
from dehaze.training.recipes.draco import RECIPE as DRACO
from dehaze.training.recipes.progressive_api import ProgressiveObjective

RECIPE = replace(DRACO, network=NETWORKS.get("progressive:draco"), objective=ProgressiveObjective)
