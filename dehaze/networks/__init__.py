"""The networks by name, one file each; `progressive:NAME` is the progressive framework around another.

`base.py` says what a network is: how to call it, the sizes it accepts, and what only some networks can do.
"""

from dehaze.networks.base import Network
from dehaze.registry import Registry

NETWORKS: Registry[type[Network]] = Registry("model")
NETWORKS.register_lazy("api", "dehaze.networks.api.network:API")
NETWORKS.register_lazy("cliphaze_b", "dehaze.networks.cliphaze:CLIPHazeBase")
NETWORKS.register_lazy("cliphaze_t", "dehaze.networks.cliphaze:CLIPHaze")
NETWORKS.register_lazy("dcp", "dehaze.networks.dcp:DCP")
NETWORKS.register_lazy("draco", "dehaze.networks.draco:DRACO")
NETWORKS.register_lazy("identity", "dehaze.networks.identity:Identity")
NETWORKS.register_wrapper("progressive", "dehaze.networks.progressive:progressive")
