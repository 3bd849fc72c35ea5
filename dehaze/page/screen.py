"""A photograph restored for the screen: small copies, and the pixels on disk."""

from dataclasses import dataclass
from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image

from dehaze.adjust import Adjustments
from dehaze.io.photo import Photo
from dehaze.page import inference, scores
from dehaze.page.kept import Kept
from dehaze.page.preview import preview
from dehaze.page.workshop import PREVIEW_SIDE, megapixels, restored, shelf


@dataclass(frozen=True)
class Shown:
    """What the page shows of a restoration."""

    before: Image.Image  # a small copy
    kept: Kept  # the photograph
    screen: Kept  # the small copy
    megapixels: float
    seconds: float
    notes: tuple[str, ...]  # of what was not taken from the file


def restore_for_screen(path: Path, model: str, request: gr.Request | None) -> Shown:
    """Run a model on a photograph; nothing of its size stays in memory."""

    def shown(photo: Photo) -> Shown:
        found, seconds = inference.find(model, photo)
        kept = shelf.add(Kept.of(photo, found))
        screen = kept.copy(PREVIEW_SIDE)
        return Shown(preview(photo, PREVIEW_SIDE), kept, screen, megapixels(photo), seconds, photo.notes)

    return restored(model, lambda: path, request, shown)


def finished(model: str, screen: Kept, adjustments: Adjustments, strength: float) -> Image.Image:
    """Finish a small copy."""
    return preview(inference.finish(model, screen, adjustments, strength), PREVIEW_SIDE)


def own_density(model: str, screen: Kept) -> np.ndarray | None:
    """Return the model's own haze density [H,W], with a long side of at most the size that is shown."""
    density = inference.density(model, screen)
    if density is None:
        return None
    small = Image.fromarray(density)
    small.thumbnail((scores.SIDE, scores.SIDE), Image.Resampling.BOX)
    return np.asarray(small)


def note() -> str:
    """Say of what the scores are, and whose estimate the haze density is."""
    by_clip = "estimated by CLIP, independently of the model you chose"
    return scores.note(by_clip if inference.haze_estimator() else "the model's own estimate")
