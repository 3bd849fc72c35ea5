"""What every network is, and what only some networks can do; callers ask by `isinstance`, never by attribute."""

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, ClassVar, Generic, TypeVar

from torch import Tensor, nn
from typing_extensions import TypeIs

from dehaze.adjust import Adjustments, Change

Maps = TypeVar("Maps", bound=tuple[Tensor, ...])


class Configured(nn.Module):
    """A module that is built from a configuration."""

    config_class: ClassVar[type | None] = None  # a dataclass whose numbers have limits; None: there are no weights
    config: Any  # of `config_class`


class Network(Configured, ABC):
    """Restore images: `forward` takes `hazy` [B,3,H,W] in [0,1] and returns the same shape and range.

    The sizes say what H and W have to be and how a caller best cuts large photographs. The `Dehazer` pads and tiles;
    a network does neither, and loads no other model: what it needs is handed in.
    """

    multiple_of: int = 1  # px: heights and widths are multiples of it
    min_size: int = 1  # px: the smallest height and width, itself a multiple
    max_size: int | None = None  # px: the largest height and width; larger photographs need tiles
    margin: int = 0  # px of mirrored surroundings that keep artefacts from the borders
    tile_size: int | None = None  # px: side of the tiles of large photographs; None: it must see the whole at once
    finish: Adjustments = Adjustments()  # what its results need in every look

    @abstractmethod
    def forward(self, hazy: Tensor) -> Tensor:
        """Restore `hazy` [B,3,H,W] in [0,1]; return the same shape, clipped to [0,1]."""

    def stages(self, hazy: Tensor) -> list[Tensor]:
        """Return the intermediate results, each as `forward` returns its own; the last one is the output."""
        return [self(hazy)]


class EstimatesDensity(Network):
    """A network that estimates the haze density."""

    @abstractmethod
    def restore_with_density(self, hazy: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored image [B,3,H,W], not clipped, and the density 1 − t [B,1,H,W] in [0,1]."""

    def forward(self, hazy: Tensor) -> Tensor:
        """Restore `hazy` [B,3,H,W] in [0,1]; return the same shape, clipped to [0,1]."""
        return self.restore_with_density(hazy)[0].clamp(0, 1)


class PredictsMaps(EstimatesDensity, Generic[Maps]):
    """A network that predicts small smooth maps, which a large photograph can take from a reduced copy of itself.

    Maps are a NamedTuple whose fields are tensors [B,C,H/`maps_scale`,W/`maps_scale`]. Of a photograph that is larger
    than `tile_size`², they come from a copy of so many pixels.
    """

    maps_scale: int

    @abstractmethod
    def maps(self, hazy: Tensor) -> Maps:
        """Predict the maps for `hazy` [B,3,H,W] in [0,1]."""

    @staticmethod
    @abstractmethod
    def apply_maps(hazy: Tensor, maps: Maps) -> tuple[Tensor, Tensor]:
        """Apply maps of any resolution to `hazy` [B,3,H,W]; return what `restore_with_density` does."""

    @staticmethod
    @abstractmethod
    def change_maps(maps: Maps, change: Change) -> Maps:
        """Return the maps whose result is that of `maps` after the change, which has their size."""

    def restore_with_density(self, hazy: Tensor) -> tuple[Tensor, Tensor]:
        """Return the restored image [B,3,H,W], not clipped, and the density 1 − t [B,1,H,W] in [0,1]."""
        return self.apply_maps(hazy, self.maps(hazy))


def predicts_maps(network: nn.Module) -> TypeIs[PredictsMaps[tuple[Tensor, ...]]]:
    """Tell whether a network predicts maps, of whatever kind."""
    return isinstance(network, PredictsMaps)


def change_fields(function: Callable[..., Tensor], *maps: Maps) -> Maps:
    """Apply a function to each field of maps, or to the same field of several maps of one kind."""
    return type(maps[0])(*map(function, *maps))


class TakesInstruction(Network):
    """A network that takes, beside the image, what a CLIP model says of it (`dehaze.density.Haze`)."""

    @property
    @abstractmethod
    def instructions(self) -> tuple[str, ...]:
        """The fields of `Haze` that `forward` and `stages` take by name; none where the configuration needs none."""

    @property
    @abstractmethod
    def clip(self) -> str:
        """The CLIP model, as `dehaze.density.load_density` takes it."""

    @property
    @abstractmethod
    def embedding_size(self) -> int:
        """How many numbers the CLIP model's embeddings have."""

    @abstractmethod
    def forward(self, hazy: Tensor, **instruction: Tensor) -> Tensor:
        """Restore `hazy` [B,3,H,W] in [0,1]; return the same shape, clipped to [0,1]."""

    def stages(self, hazy: Tensor, **instruction: Tensor) -> list[Tensor]:
        """Return the intermediate results, each as `forward` returns its own; the last one is the output."""
        return [self(hazy, **instruction)]


class RoutesPatches(Network):
    """A network that sends patches above a threshold of importance through more layers, at more cost."""

    threshold: Tensor | None  # in (0,1); None where every patch takes the same way
