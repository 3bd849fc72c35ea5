"""The haze density of a photograph as a picture: grey, 0 where the air is clear, 255 where nothing is seen."""

import io
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from dehaze.dehazer import Dehazer
from dehaze.errors import DehazeError, OutputError
from dehaze.io.files import write_whole
from dehaze.io.names import claim_path, density_name
from dehaze.io.photo import Photo


def estimate(dehazer: Dehazer, photo: Photo) -> np.ndarray:
    """Return the haze density 1 − t [H,W] in [0,1]. Raises DehazeError for a model that estimates none."""
    found = dehazer.restore_tensor(photo.tensor())[1]
    if found is None:
        raise DehazeError("estimates no haze density.", "Choose a model that does, such as api.", subject=dehazer.name)
    return found[0, 0].numpy()


def choose_targets(photos: Sequence[Path], output: Path | None = None) -> dict[Path, Path]:
    """Choose a path for each map, all different: NAME_haze_density.png beside its photograph or in the folder `output`.

    For one photograph `output` may be a file. Raises OutputError if it is one and there are more.
    """
    if output is not None and output.suffix.lower() == ".png" and not output.is_dir():
        if len(photos) > 1:
            reason = f"is one file, and {len(photos)} photographs are given."
            raise OutputError(reason, "Name a folder.", subject=output)
        return dict.fromkeys(photos, output)
    taken: set[str] = set()
    named = {photo: density_name(photo.name) for photo in photos}
    return {photo: claim_path((output or photo.parent) / name, taken) for photo, name in named.items()}


def write_map(density: np.ndarray, target: Path) -> None:
    """Write a density [H,W] in [0,1] as a grey PNG. Raises OutputError."""
    data = io.BytesIO()
    Image.fromarray((density * 255).round().astype(np.uint8)).save(data, "png")
    write_whole(target, data.getvalue())
