"""A restoration kept for later: finished in any way, without running the model again."""

import weakref
from collections import deque
from dataclasses import dataclass, replace
from tempfile import TemporaryFile
from threading import Lock

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from dehaze.adjust import COPY_PIXELS
from dehaze.dehazer import Dehazer, Found
from dehaze.errors import DehazeError
from dehaze.io.photo import Photo, read_photo
from dehaze.networks.base import change_fields
from dehaze.page.folder import reserve
from dehaze.page.preview import preview


@dataclass
class Kept:
    """A photograph and what a network found in it, on disk, as many of these fill a memory.

    `photo` is None once it was dropped for want of room.
    """

    photo: Photo | None
    found: Found
    restored: Photo | None = None  # instead of `found.restored`

    @classmethod
    def of(cls, photo: Photo, found: Found) -> "Kept":
        """Keep what was found in a photograph. Raises OSError if the disk is full."""
        if found.restored is None:
            maps = change_fields(_tensor_on_disk, found.maps)
            return cls(_on_disk(photo), Found(maps, _tensor_on_disk(found.seen)))
        restored = photo.with_tensor(found.restored.clamp(0, 1))
        density = None if found.density is None else _reduced(found.density)
        return cls(_on_disk(photo), Found(density=density), _on_disk(restored))

    def copy(self, side: int) -> "Kept":
        """Return a small copy for a screen, as `preview` makes it. Raises DehazeError if it was dropped."""
        if self.photo is None:
            raise dropped()
        restored = self.restored and _on_disk(read_photo(preview(self.restored, side)))
        return Kept(_on_disk(read_photo(preview(self.photo, side))), self.found, restored)

    @property
    def bytes(self) -> int:
        """Return the room on disk that it takes."""
        tensors = (*self.found.maps, self.found.seen)
        photos = sum(photo.pixels.nbytes for photo in (self.photo, self.restored) if photo)
        return photos + sum(tensor.nbytes for tensor in tensors)

    def finished(self, dehazer: Dehazer, strength: float) -> Photo:
        """Return the photograph as a dehazer of the same network finishes it. Raises DehazeError if it was dropped."""
        if self.photo is None:
            raise dropped()
        found = self.found if self.restored is None else self.found._replace(restored=self.restored.tensor())
        return self.photo.with_tensor(dehazer.finish(self.photo.tensor(), found, strength)[0])

    def density(self, dehazer: Dehazer) -> np.ndarray | None:
        """Return the haze density [H,W] that the network found, None where it estimates none."""
        if self.photo is None:
            raise dropped()
        if self.restored is not None:
            return None if self.found.density is None else self.found.density[0, 0].numpy()
        _, density = dehazer.finish(self.photo.tensor(), self.found)
        return None if density is None else density[0, 0].numpy()

    def drop(self) -> None:
        """Make room."""
        self.photo, self.found, self.restored = None, Found(), None


def dropped() -> DehazeError:
    return DehazeError("This result is not kept any more. Restore the photograph again.")


class Shelf:
    """Keep restorations within some bytes on disk: the oldest are dropped for the newest."""

    def __init__(self, limit: int):
        self._limit = limit
        self._kept: deque[weakref.ref[Kept]] = deque()  # those that their visitors have left are gone by themselves
        self._lock = Lock()

    def add(self, kept: Kept) -> Kept:
        """Make room for a restoration and return it."""
        with self._lock:
            self._kept = deque(one for one in self._kept if one() is not None)
            self._kept.append(weakref.ref(kept))
            there = [one for one in (found() for found in self._kept) if one is not None]
            excess = sum(one.bytes for one in there) - self._limit
            for one in there[:-1]:
                if excess <= 0:
                    break
                excess -= one.bytes
                one.drop()
        return kept


def _on_disk(photo: Photo) -> Photo:
    return replace(photo, pixels=_array_on_disk(photo.pixels))


def _tensor_on_disk(tensor: Tensor) -> Tensor:
    return torch.from_numpy(_array_on_disk(tensor.numpy()))


def _array_on_disk(array: np.ndarray) -> np.ndarray:
    """Move an array into a file without a name, which is gone with it."""
    with TemporaryFile() as file:
        reserve(file, array.nbytes)
        kept = np.memmap(file, array.dtype, "w+", shape=array.shape)
    kept[:] = array
    return kept


def _reduced(density: Tensor) -> Tensor:
    """Return a density [1,1,H,W] of at most so many pixels as adjustments look at."""
    scale = min(1.0, (COPY_PIXELS / density.numel()) ** 0.5)
    return F.interpolate(density, scale_factor=scale, mode="area")
