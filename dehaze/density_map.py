"""The haze density of a photograph as a picture: grey, 0 where the air is clear, 255 where nothing is seen."""

import io
from pathlib import Path

import numpy as np
from PIL import Image

from dehaze.dehazer import Dehazer
from dehaze.errors import DehazeError
from dehaze.io.files import write_whole
from dehaze.io.names import DENSITY_STEM, claim_path
from dehaze.io.photo import Photo


def estimate(dehazer: Dehazer, photo: Photo) -> np.ndarray:
    """Return the haze density 1 − t [H,W] in [0,1]. Raises DehazeError for a model that estimates none."""
    found = dehazer.restore_tensor(photo.tensor())[1]
    if found is None:
        raise DehazeError("estimates no haze density.", "Choose a model that does, such as api.", subject=dehazer.name)
    return found[0, 0].numpy()


def write_map(dehazer: Dehazer, photo: Photo, file: Path, taken: set[str]) -> tuple[float, Path]:
    """Write the map of a photograph beside `file`, as NAME_haze_density.png; return its mean and its path.

    `taken` holds the paths that other maps have. Raises DehazeError, OutputError.
    """
    density = estimate(dehazer, photo)
    target, data = claim_path(file.with_name(f"{DENSITY_STEM.format(file.stem)}.png"), taken), io.BytesIO()
    Image.fromarray((density * 255).round().astype(np.uint8)).save(data, "png")
    write_whole(target, data.getvalue())
    return float(density.mean()), target
