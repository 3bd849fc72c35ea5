import gc

import numpy as np
import pytest
import torch

from dehaze.dehazer import Restoration
from dehaze.errors import DehazeError
from dehaze.io.photo import read_photo
from dehaze.page.kept import Kept, Shelf


def kept(dtype=np.uint8):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (30, 20, 4), dtype, endpoint=True)
    photo = read_photo(pixels)
    return photo, Kept.of(photo, Restoration(photo.with_tensor(1 - photo.tensor()), None, 0.1, "inverse"))


def test_pixels_are_on_disk_and_the_same():
    photo, result = kept()
    assert all(isinstance(one.pixels, np.memmap) for one in result.photos)
    assert np.array_equal(result.photos[0].pixels, photo.pixels)
    assert torch.equal(result.at(0).tensor(), photo.tensor())
    assert result.bytes == 2 * 30 * 20 * 3


def test_strength_blends_the_two():
    for dtype in (np.uint8, np.uint16):
        photo, result = kept(dtype)
        hazy, restored = photo.pixels.astype(float), result.at(1).pixels.astype(float)
        for strength in (0, 0.25, 0.8, 1):
            mixed = result.at(strength)
            assert np.abs(mixed.pixels - ((1 - strength) * hazy + strength * restored)).max() <= 0.51
            assert mixed.pixels.dtype == dtype and np.array_equal(mixed.alpha, photo.alpha)


def test_the_oldest_make_room_for_the_newest():
    shelf, results = Shelf(2 * kept()[1].bytes), []
    for _ in range(3):
        results.append(shelf.add(kept()[1]))
    with pytest.raises(DehazeError, match="Restore the photograph again"):
        results[0].at(1)
    assert results[1].at(1) and results[2].at(1)

    del results[2]  # its visitor left
    gc.collect()
    results.append(shelf.add(kept()[1]))
    assert results[1].at(1)
    assert Shelf(1).add(results[1]).at(1)  # the newest stays, however large
