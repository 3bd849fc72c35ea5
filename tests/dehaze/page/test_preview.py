import numpy as np
from PIL import Image

from dehaze.io.photo import read_photo
from dehaze.page.preview import density_map, preview


def test_previews_are_small_and_opaque():
    pixels = np.full((20, 4000, 4), 65535, np.uint16)
    pixels[..., :3] = 32768
    pixels[:, 2000:, 3] = 0
    picture = preview(read_photo(pixels), 1600)
    assert (picture.mode, picture.size) == ("RGB", (1600, 8))
    assert picture.getpixel((10, 4)) == (128, 128, 128) and picture.getpixel((1590, 4)) == (255, 255, 255)


def test_previews_round_as_files_do():
    photo = read_photo(np.random.default_rng(0).integers(0, 65536, (40, 60, 3)).astype(np.uint16))
    assert np.array_equal(preview(photo, 60), photo.image())


def test_density_is_dark_where_the_air_is_clear():
    density = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (32, 1))
    picture = np.asarray(density_map(density, Image.new("RGB", (64, 32)), 800).convert("L"))
    assert (np.diff(picture.astype(int), axis=1) >= -1).all() and picture[:, -1].min() > 2 * picture[:, 0].max()
