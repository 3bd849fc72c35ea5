"""The networks by name, each in a file of its own; `progressive:NAME` is the progressive framework around another.

A network is an `nn.Module` with `forward(hazy) -> restored` on tensors [B,3,H,W] in [0,1], and
- `stages(hazy) -> list[Tensor]`: intermediate results, the last one being the output;
- `multiple_of`, `min_size`: the heights and widths in pixels that it accepts (the `Dehazer` pads, never the network);
- `tile_size`: the tile's side in pixels on large photographs, or None if it must see all at once;
- `margin`: the pixels of mirrored surroundings that keep its borders free of rings;
- `config_class`: the dataclass that it is built from, each of whose numbers has limits, None for a network without
  weights;
- `restore_with_density(hazy) -> (restored, density[B,1,H,W] in [0,1])` where it knows the haze density;
- `instruct(hazy) -> dict` where it takes more than the image: further arguments of `forward`, from a whole image of any
  size. Maps [B,C,H,W] among them are cut with the image where it is run in tiles; a `density` [B,1,H,W] in [0,1] is the
  haze density;
- `threshold`: a buffer, where it routes patches: those of higher importance take the dense way, at more cost;
- `maps(hazy) -> Tensor` at 1/`maps_scale` of the resolution and `apply_maps(hazy, maps) -> (restored, density)` where
  the result is a smooth map of the input, which a large photograph can take from a reduced copy of itself.
"""

from torch import nn

from dehaze.registry import Registry

NETWORKS: Registry[type[nn.Module]] = Registry("model")
NETWORKS.register_lazy("api", "dehaze.networks.api.network:API")
NETWORKS.register_lazy("cliphaze_b", "dehaze.networks.cliphaze:CLIPHazeBase")
NETWORKS.register_lazy("cliphaze_t", "dehaze.networks.cliphaze:CLIPHaze")
NETWORKS.register_lazy("dcp", "dehaze.networks.dcp:DCP")
NETWORKS.register_lazy("draco", "dehaze.networks.draco:DRACO")
NETWORKS.register_lazy("identity", "dehaze.networks.identity:Identity")
NETWORKS.register_wrapper("progressive", "dehaze.networks.progressive:progressive")
