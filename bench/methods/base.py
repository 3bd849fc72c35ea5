"""What the runner needs of a method: its name, and the restored pixels of one image."""

from dataclasses import dataclass
from typing import Protocol as Interface

import numpy as np
from PIL import Image

from bench.datasets import Sample
from bench.record import Method


@dataclass(frozen=True)
class Restored:
    """A restored image [H,W,3] uint8, its seconds if known, and the side of its tiles in pixels if memory was short."""

    pixels: np.ndarray
    seconds: float | None = None
    tile: int | None = None


class Restorer(Interface):
    """Restores the images of a data set; `device` and `dtype` say on what."""

    method: Method
    device: str
    dtype: str

    def restore_image(self, sample: Sample, hazy: Image.Image) -> Restored:
        """Restore one image at the size of `hazy`."""
        ...
