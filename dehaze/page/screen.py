"""A photograph restored for the screen: small copies, and the pixels on disk."""

from dataclasses import dataclass
from pathlib import Path

import gradio as gr
import numpy as np
from PIL import Image

import dehaze
from dehaze.io.photo import Photo
from dehaze.page import inference, scores
from dehaze.page.kept import Kept
from dehaze.page.preview import preview
from dehaze.page.workshop import PREVIEW_SIDE, megapixels, restored, shelf


@dataclass(frozen=True)
class Shown:
    """What the page shows of a restoration: small copies."""

    before: Image.Image
    after: Image.Image
    density: np.ndarray | None
    kept: Kept
    megapixels: float
    seconds: float
    notes: tuple[str, ...]  # of what was not taken from the file


def restore_for_screen(path: Path, model: str, request: gr.Request | None) -> Shown:
    """Restore a photograph in full; nothing of its size stays in memory."""

    def shown(photo: Photo, restoration: dehaze.Restoration) -> Shown:
        return Shown(
            before=preview(photo, PREVIEW_SIDE),
            after=preview(restoration.photo, PREVIEW_SIDE),
            density=reduced_density(restoration.density),
            kept=shelf.add(Kept.of(photo, restoration)),
            megapixels=megapixels(photo),
            seconds=restoration.seconds,
            notes=photo.notes,
        )

    return restored(model, lambda: path, 1.0, request, shown)


def reduced_density(density: np.ndarray | None) -> np.ndarray | None:
    """Return a haze density [H,W] with a long side of at most the size that is shown."""
    if density is None:
        return None
    small = Image.fromarray(density)
    small.thumbnail((scores.SIDE, scores.SIDE), Image.Resampling.BOX)
    return np.asarray(small)


def note() -> str:
    """Say of what the scores are, and whose estimate the haze density is."""
    by_clip = "estimated by CLIP, independently of the model you chose"
    return scores.note(by_clip if inference.haze_estimator() else "the model's own estimate")
