"""The identity: returns its input, the floor of every table."""

from typing import ClassVar

from torch import Tensor, nn


class Identity(nn.Module):
    """Return the hazy image as it is."""

    config_class = None
    multiple_of: ClassVar[int] = 1
    min_size: ClassVar[int] = 1
    margin: ClassVar[int] = 0
    tile_size: ClassVar[int | None] = None

    def forward(self, hazy: Tensor) -> Tensor:
        """Return a copy of `hazy` [B,3,H,W]."""
        return hazy.clone()

    def stages(self, hazy: Tensor) -> list[Tensor]:
        """Return the only stage: the output."""
        return [self(hazy)]
