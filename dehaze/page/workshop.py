"""Restoring for visitors: their turns and allowances, and the files of their results."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import uuid4

import gradio as gr
import numpy as np
from gradio.utils import get_space, get_upload_folder
from PIL import Image

from dehaze.errors import DehazeError
from dehaze.io.photo import Photo, read_photo, read_photo_header
from dehaze.memory import release_freed_memory
from dehaze.page import inference, scores
from dehaze.page.inference import infer
from dehaze.page.kept import Shelf
from dehaze.page.visitors import Allowance, address, scoring, turns

MAX_MEGAPIXELS = 60
MAX_FILE_BYTES = 100_000_000  # of an upload, or of a photograph in an archive
MAX_JPEG2000 = 12  # megapixels; their decoder lets no other request be answered meanwhile
MIN_SIDE = 16  # px
PREVIEW_SIDE = 1600  # px; what the browser is shown; the download has every pixel
KEPT_SECONDS = 3600  # for which a visitor's files and results are kept
KEPT_BYTES = 8_000_000_000  # of results on disk; then the oldest make room
# What one visitor may have restored in this time. Seconds of work are estimated.
ALLOWED_SECONDS = 600
ALLOWED = {"photographs": 300, "megapixels": 1500, "seconds of work": 400}
UNMEASURED_SECONDS = 5.0  # per megapixel, of a model that nobody timed
OTHER_SECONDS = 0.2  # per megapixel: to decode, to apply what the network found on a reduced copy, and to encode
# Proxies in front of the page that append to X-Forwarded-For; a Space has one.
PROXIES = int(os.environ.get("DEHAZE_PROXIES", bool(get_space())))

allowance = Allowance(ALLOWED, ALLOWED_SECONDS)
shelf = Shelf(KEPT_BYTES)


def visitor(request: gr.Request | None) -> str:
    """Tell visitors apart by their address."""
    return address(request.request.scope, PROXIES) if request and request.request else ""


def restored(
    model: str,
    given: Callable[[], Path | bytes],
    request: gr.Request | None,
    restore: Callable[[Photo], Any],
) -> Any:
    """Read a file, or its bytes, when the visitor's turn comes; return what `restore` makes of the photograph.

    The turn ends when nothing of the photograph's size is left, so that the memory holds one at a time. Raises
    DehazeError if the visitor has had enough, or the file is no photograph that the page takes.
    """
    who = visitor(request)

    def work() -> Any:
        source = given()
        width, height, kind = read_photo_header(source)
        taken = width * height / 1e6
        name = source if isinstance(source, Path) else "The data"
        if min(height, width) < MIN_SIDE:
            advice = f"Give one with {MIN_SIDE} or more on each side."
            raise DehazeError(f"has {width}×{height} pixels.", advice, subject=name)
        if kind == "JPEG2000" and taken > MAX_JPEG2000:
            reason = f"has {taken:.1f} megapixels, and the limit for JPEG 2000 files is {MAX_JPEG2000}."
            raise DehazeError(reason, "Convert it to JPEG.", subject=name)
        if taken <= MAX_MEGAPIXELS:  # else it is refused next
            allowance.take(who, {"photographs": 1, "megapixels": taken, "seconds of work": seconds(model, taken)})
        photo = read_photo(source, max_megapixels=MAX_MEGAPIXELS)
        return restore(photo)

    with turns(who):
        try:
            return work()
        finally:
            release_freed_memory()


def seconds(model: str, megapixels: float) -> float:
    """Estimate the seconds that a photograph takes: a network sees a megapixel of it at most."""
    return scores.speeds().get(model, UNMEASURED_SECONDS) * min(1, megapixels) + OTHER_SECONDS * megapixels


def megapixels(photo: Photo) -> float:
    return photo.pixels[..., 0].size / 1e6


def in_cache(name: str) -> Path:
    """Return a path in the folder that the page serves files from and empties in time."""
    folder = Path(get_upload_folder()) / uuid4().hex
    folder.mkdir(parents=True)
    return folder / name


def saved(picture: Image.Image, name: str) -> Path:
    path = in_cache(name)
    picture.save(path, compress_level=3)
    return path


def haze_density(picture: Image.Image, model: str, visitor: str = "") -> np.ndarray | None:
    """Estimate the haze density [H,W] of a small copy, by CLIP, else by the model, when its visitor's turn comes."""
    photo = read_photo(scores.reduced(picture))
    with scoring(visitor):
        if teller := inference.haze_estimator():
            return teller.map(photo.tensor())[0, 0].numpy()
        return infer(model, photo).density


def mean(density: np.ndarray | None) -> float | None:
    return None if density is None else float(density.mean())
