"""A restoration kept for later: any strength of it, without running the model again."""

from dataclasses import dataclass, replace
from tempfile import TemporaryFile

import numpy as np
import torch

from dehaze.dehazer import Restoration
from dehaze.image import Photo


@dataclass(frozen=True)
class Kept:
    """A photograph before and after its restoration in full; the pixels are on disk, as many of these fill a memory."""

    hazy: Photo
    restored: Photo

    @classmethod
    def of(cls, hazy: Photo, restoration: Restoration) -> "Kept":
        """Keep a restoration in full, and what it was made from."""
        return cls(_on_disk(hazy), _on_disk(restoration.photo))

    def at(self, strength: float) -> Photo:
        """Return the photograph between the hazy one (0) and the fully restored one (1)."""
        if strength == 1:
            return self.restored
        return self.hazy.with_tensor(torch.lerp(self.hazy.tensor(), self.restored.tensor(), strength))


def _on_disk(photo: Photo) -> Photo:
    """Move the pixels into a file without a name, which is gone with the photograph."""
    with TemporaryFile() as file:
        pixels = np.memmap(file, photo.pixels.dtype, "w+", shape=photo.pixels.shape)
    pixels[:] = photo.pixels
    return replace(photo, pixels=pixels)
