"""What a screen shows of a photograph: a small copy, and the haze density in colours over it."""

from functools import cache

import numpy as np
from PIL import Image

from dehaze.io.photo import Photo, to_8_bits


def preview(photo: Photo, side: int) -> Image.Image:
    """Return a copy: RGB, 8 bits, long side at most `side` px, transparency on white."""
    picture = Image.fromarray(to_8_bits(photo.pixels))
    if photo.alpha is not None:
        white = Image.new("RGB", picture.size, "white")
        picture = Image.composite(picture, white, Image.fromarray(to_8_bits(photo.alpha)))
    if photo.icc_profile and "RGB" in photo.mode:
        picture.info["icc_profile"] = photo.icc_profile
    picture.thumbnail((side, side), Image.Resampling.LANCZOS, reducing_gap=3)
    return picture


@cache
def colour_table() -> np.ndarray:
    """Return the 256 colours of the haze density, [256, 3] uint8: perceptually even, safe for the colour-blind."""
    from matplotlib import colormaps

    return colormaps["viridis"](np.arange(256), bytes=True)[:, :3]


def density_map(density: np.ndarray, picture: Image.Image, side: int) -> Image.Image:
    """Colour the density [H,W] in [0,1] over the greys of the photograph, with a long side of at most `side` px."""
    grey = picture.convert("L")
    grey.thumbnail((side, side))
    small = np.asarray(Image.fromarray(density).resize(grey.size, Image.Resampling.BILINEAR))
    colours = colour_table()[(small * 255).round().astype(np.uint8)]
    return Image.blend(Image.fromarray(colours), grey.convert("RGB"), 0.3)
