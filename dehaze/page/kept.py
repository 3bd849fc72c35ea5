"""A restoration kept for later: any strength of it, without running the model again."""

import weakref
from collections import deque
from dataclasses import dataclass, replace
from tempfile import TemporaryFile
from threading import Lock

import numpy as np
import torch

from dehaze.dehazer import Restoration
from dehaze.errors import DehazeError
from dehaze.io.photo import Photo
from dehaze.page.folder import reserve


@dataclass
class Kept:
    """A photograph before and after its restoration in full; the pixels are on disk, as many of these fill a memory.

    `photos` is None once it was dropped for want of room.
    """

    photos: tuple[Photo, Photo] | None

    @classmethod
    def of(cls, hazy: Photo, restoration: Restoration) -> "Kept":
        """Keep a restoration in full, and what it was made from. Raises OSError if the disk is full."""
        return cls((_on_disk(hazy), _on_disk(restoration.photo)))

    @property
    def bytes(self) -> int:
        """Return the room on disk that it takes."""
        return sum(photo.pixels.nbytes for photo in self.photos or ())

    def at(self, strength: float) -> Photo:
        """Return the photograph between the hazy one (0) and the fully restored one (1).

        Raises DehazeError if it was dropped.
        """
        if self.photos is None:
            raise DehazeError("This result is not kept any more. Restore the photograph again.")
        hazy, restored = self.photos
        return restored if strength == 1 else hazy.with_tensor(torch.lerp(hazy.tensor(), restored.tensor(), strength))


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
                one.photos = None
        return kept


def _on_disk(photo: Photo) -> Photo:
    """Move the pixels into a file without a name, which is gone with the photograph."""
    with TemporaryFile() as file:
        reserve(file, photo.pixels.nbytes)
        pixels = np.memmap(file, photo.pixels.dtype, "w+", shape=photo.pixels.shape)
    pixels[:] = photo.pixels
    return replace(photo, pixels=pixels)
