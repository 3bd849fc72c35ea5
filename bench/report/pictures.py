"""Pictures for reports: found by the ids of samples, made small."""

import base64
import io
from collections.abc import Mapping
from pathlib import Path

from PIL import Image

from bench.errors import DatasetError

Pictures = Mapping[str, Mapping[str, Path]]  # files by image id, by what they show: "hazy", "restored", "clear"


def find(folder: Path) -> dict[str, Path]:
    """Return the images in `folder` and below by id, which is the path without suffix, as `bench score` takes them.

    Raises DatasetError if there are none, or two of one id.
    """
    from bench.datasets import images_by_id

    found = images_by_id(folder)
    if not found:
        advice = "Give the folder of restored images, named as the hazy ones."
        raise DatasetError("holds no image.", advice, subject=folder)
    return found


def small(path: Path | None, side: int) -> Image.Image | None:
    """Return the image, upright, 8-bit RGB, with a long side of at most `side`; None where it cannot be shown."""
    from bench.protocol import eight_bit
    from dehaze.io.photo import read_photo

    if path is None:
        return None
    try:
        image = Image.fromarray(eight_bit(read_photo(path.read_bytes()).pixels)).convert("RGB")
    except Exception:  # whatever a decoder raises: the report is of the others too
        return None
    image.thumbnail((side, side), Image.Resampling.LANCZOS)
    return image


def data_uri(image: Image.Image) -> str:
    """Return the image as a JPEG that a page holds in itself."""
    file = io.BytesIO()
    image.save(file, "JPEG", quality=85)
    return f"data:image/jpeg;base64,{base64.b64encode(file.getvalue()).decode()}"
