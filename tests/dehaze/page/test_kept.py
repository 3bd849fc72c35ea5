import gc

import numpy as np
import pytest
import torch

import dehaze
from dehaze.dehazer import Dehazer
from dehaze.errors import DehazeError
from dehaze.io.photo import read_photo
from dehaze.networks.base import Network
from dehaze.page.kept import Kept, Shelf


class Inverse(Network):
    def forward(self, hazy):
        return 1 - hazy


DEHAZER = Dehazer("inverse", Inverse(), torch.device("cpu"), torch.float32)


def kept(dtype=np.uint8, dehazer=DEHAZER, size=(30, 20)):
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (*size, 4), dtype, endpoint=True)
    photo = read_photo(pixels)
    return photo, Kept.of(photo, dehazer.find(photo.tensor()))


def test_pixels_are_on_disk_and_the_same():
    photo, result = kept()
    assert all(isinstance(one.pixels, np.memmap) for one in (result.photo, result.restored))
    assert np.array_equal(result.photo.pixels, photo.pixels)
    assert torch.equal(result.finished(DEHAZER, 0).tensor(), photo.tensor())
    assert result.bytes == 2 * 30 * 20 * 3


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_strength_blends_the_two(dtype):
    photo, result = kept(dtype)
    hazy, restored = photo.pixels.astype(float), result.finished(DEHAZER, 1).pixels.astype(float)
    for strength in (-0.5, 0, 0.25, 0.8, 1, 1.5):
        mixed = result.finished(DEHAZER, strength)
        expected = ((1 - strength) * hazy + strength * restored).clip(0, np.iinfo(dtype).max)
        assert np.abs(mixed.pixels - expected).max() <= 0.51
        assert mixed.pixels.dtype == dtype and np.array_equal(mixed.alpha, photo.alpha)


@pytest.mark.parametrize("model", ["api", "dcp"])
def test_what_was_kept_is_finished_as_the_library_does_it(model):
    dehazer = dehaze.load(model)
    photo, result = kept(dehazer=dehazer, size=(90, 130))
    for look, strength in (("photo", 1), ("faithful", 0.5), ("faithful", -1)):
        same = dehaze.load(model, look=look)
        expected = same(photo, strength).pixels.astype(float)
        found = result.finished(same, strength).pixels
        assert np.abs(found - expected).max() <= (0 if model == "api" else 3)  # what was restored is kept in 8 bits
    density = dehazer(photo).density
    assert result.density(dehazer) == pytest.approx(density, abs=1e-6)


def test_a_copy_for_the_screen_has_the_same_findings():
    dehazer = dehaze.load("api")
    _, result = kept(dehazer=dehazer, size=(90, 130))
    copy = result.copy(65)
    assert copy.photo.pixels.shape == (45, 65, 3)
    assert copy.found.maps[0].shape == result.found.maps[0].shape
    assert copy.finished(dehazer, 1).pixels.shape == (45, 65, 3)
    result.drop()
    with pytest.raises(DehazeError, match="Restore the photograph again"):
        result.copy(65)


def test_the_oldest_make_room_for_the_newest():
    shelf, results = Shelf(2 * kept()[1].bytes), []
    for _ in range(3):
        results.append(shelf.add(kept()[1]))
    with pytest.raises(DehazeError, match="Restore the photograph again"):
        results[0].finished(DEHAZER, 1)
    assert results[1].finished(DEHAZER, 1) and results[2].finished(DEHAZER, 1)

    del results[2]  # its visitor left
    gc.collect()
    results.append(shelf.add(kept()[1]))
    assert results[1].finished(DEHAZER, 1)
    assert Shelf(1).add(results[1]).finished(DEHAZER, 1)  # the newest stays, however large
