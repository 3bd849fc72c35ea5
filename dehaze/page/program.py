"""The page for programs: one documented function."""

import gradio as gr
import numpy as np
from PIL import Image

from dehaze.io.names import density_name, output_name
from dehaze.io.photo import Photo
from dehaze.page.inference import infer
from dehaze.page.messages import chosen_strength, explained, uploaded
from dehaze.page.models import chosen_model
from dehaze.page.preview import preview
from dehaze.page.scores import measured
from dehaze.page.workshop import PREVIEW_SIDE, in_cache, megapixels, restored, saved, visitor


def remove_haze(photo: dict | None, model: str, strength: float, request: gr.Request) -> tuple[str, str | None, dict]:
    """Remove haze from a photograph.

    Returns the restored photograph (same size, and same format where that is JPEG, PNG, WebP or TIFF), the estimated
    haze density as a grey PNG (0 clear, 255 opaque; null if the model knows none), and seconds, megapixels and
    no-reference scores before and after (lower is better, null if the photograph is too small).

    Args:
        photo: The photograph, up to 60 megapixels and 100 MB: JPEG, PNG, WebP, TIFF, HEIC, BMP, GIF or AVIF.
        model: The name of the model.
        strength: 0 keeps the photograph, 1 restores it in full, up to 1.5 removes more; down to -1, haze is added.
    """
    path, model, strength = uploaded(photo, "photograph"), chosen_model(model), chosen_strength(strength)

    def written(photo: Photo) -> tuple[str, str | None, dict]:
        restoration = infer(model, photo, strength)
        file = restoration.save(in_cache(output_name(path.name, photo)))
        density = None
        if restoration.density is not None:
            pixels = (restoration.density * 255).round().astype(np.uint8)
            density = str(saved(Image.fromarray(pixels), density_name(path.name)))
        facts = {"model": model, "strength": strength, "seconds": restoration.seconds, "megapixels": megapixels(photo)}
        # Within the turn: scored beside the next photograph, both would take twice as long.
        before, after = (measured(preview(each, PREVIEW_SIDE), visitor(request)) for each in (photo, restoration.photo))
        return str(file), density, facts | {"before": before, "after": after}

    with explained("This photograph cannot be restored"):
        return restored(model, lambda: path, request, written)
