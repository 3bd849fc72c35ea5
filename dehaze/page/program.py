"""The page for programs: one documented function."""

from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

import dehaze
from dehaze.io.names import output_name
from dehaze.io.photo import Photo
from dehaze.page.messages import chosen_strength, explained, uploaded
from dehaze.page.models import chosen_model
from dehaze.page.preview import preview
from dehaze.page.scores import measured_all
from dehaze.page.workshop import PREVIEW_SIDE, in_cache, megapixels, restored, saved, visitor


def remove_haze(photo: dict | None, model: str, strength: float, request: gr.Request) -> tuple[str, str | None, dict]:
    """Remove haze from a photograph.

    Returns the restored photograph (same size, and same format where that is JPEG, PNG, WebP or TIFF), the estimated
    haze density as a grey PNG (0 clear, 255 opaque; null if the model knows none), and seconds, megapixels and
    no-reference scores before and after (lower is better, null if the photograph is too small).

    Args:
        photo: The photograph, up to 60 megapixels and 100 MB: JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF.
        model: The name of the model.
        strength: From 0, which keeps the photograph, to 1, which restores it in full.
    """
    path, model, strength = uploaded(photo, "photograph"), chosen_model(model), chosen_strength(strength)
    with explained("This photograph cannot be restored"):
        file, density, facts, pair = restore_for_program(path, model, strength, request)
    scores = zip(("before", "after"), measured_all(pair, visitor(request)), strict=True)
    return str(file), density and str(density), facts | dict(scores)


def restore_for_program(
    path: Path, model: str, strength: float, request: gr.Request | None
) -> tuple[Path, Path | None, dict[str, Any], tuple[Image.Image, Image.Image]]:
    """Restore a photograph to a file; return it, the haze density, facts, and copies before and after to be scored."""

    def written(photo: Photo, restoration: dehaze.Restoration) -> tuple:
        file = restoration.save(in_cache(output_name(path.name, photo)))
        density = None
        if restoration.density is not None:
            pixels = (restoration.density * 255).round().astype(np.uint8)
            density = saved(Image.fromarray(pixels), f"{path.stem}_haze_density.png")
        facts = {"model": model, "strength": strength, "seconds": restoration.seconds, "megapixels": megapixels(photo)}
        return file, density, facts, (preview(photo, PREVIEW_SIDE), preview(restoration.photo, PREVIEW_SIDE))

    return restored(model, lambda: path, strength, request, written)
