import numpy as np
import torch

from dehaze import image
from dehaze.dehazer import Restoration
from dehaze.kept import Kept


def kept(dtype=np.uint8):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (30, 20, 4), dtype, endpoint=True)
    photo = image.read(pixels)
    return photo, Kept.of(photo, Restoration(photo.with_tensor(1 - photo.tensor()), None, 0.1, "inverse"))


def test_pixels_are_on_disk_and_the_same():
    photo, result = kept()
    assert isinstance(result.hazy.pixels, np.memmap) and isinstance(result.restored.pixels, np.memmap)
    assert np.array_equal(result.hazy.pixels, photo.pixels)
    assert torch.equal(result.hazy.tensor(), photo.tensor())


def test_strength_blends_the_two():
    for dtype in (np.uint8, np.uint16):
        photo, result = kept(dtype)
        hazy, restored = photo.pixels.astype(float), result.restored.pixels.astype(float)
        for strength in (0, 0.25, 0.8, 1):
            mixed = result.at(strength)
            assert np.abs(mixed.pixels - ((1 - strength) * hazy + strength * restored)).max() <= 0.51
            assert mixed.pixels.dtype == dtype and np.array_equal(mixed.alpha, photo.alpha)
