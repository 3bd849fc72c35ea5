"""The page: drop in a hazy photograph, compare before and after, take the clear one home; and the leaderboard."""

import contextlib
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

with contextlib.suppress(ImportError):
    # There on a ZeroGPU Space alone, where it must come before torch.
    import spaces  # noqa: F401  # pyright: ignore[reportMissingImports]

import gradio as gr

import dehaze
from bench.methods.shipped import identity, scored_adjustments
from bench.record import RESULTS, Record, same_model, same_output
from dehaze.io.photo import read_photo
from dehaze.page import batch, inference, photograph, scores, site, video, workshop
from dehaze.page.folder import PageFolder
from leaderboard import quality
from leaderboard.page import CSS, board, explorer, submit

SAMPLE = Path(__file__).resolve().parent / "bench" / "sample"
EXAMPLES = sorted((SAMPLE / "real").glob("*.jpg"))


def restore_as(record: Record, path: Path) -> explorer.Restored | None:
    """Restore a photograph with the model of a record, in its look; None where this page does not have it."""
    name = record.method.model
    if name not in dehaze.list_models():
        return None
    dehazer = inference.dehazer(name)
    settings = {"fast": False, "adjustments": scored_adjustments(record.method, dehazer.network)}
    today = identity(replace(dehazer, **settings))
    if not same_model(record, today):
        return None
    with workshop.turns("the leaderboard"):
        restored = inference.infer(name, read_photo(path), **settings)
        return explorer.Restored(restored.image, as_scored=same_output(record, today))


def build(results: Path = RESULTS) -> gr.Blocks:
    """Build the page; its leaderboard shows the records in the folder `results`."""
    scores.provide(quality)
    with site.frame(EXAMPLES) as page, gr.Tabs():
        with gr.Tab("Dehaze"), gr.Tabs():
            photograph.tab(SAMPLE)
            batch.tab()
            video.tab()
        with gr.Tab("Leaderboard"):
            board.leaderboard(results, restore_as)
        with gr.Tab("Submit"):
            submit.form(results, os.environ.get("DEHAZE_RESULTS"), os.environ.get("DEHAZE_DATA"))
    return page


def launch(results: Path = RESULTS, folder: PageFolder | None = None, **options: Any) -> gr.Blocks:
    """Build the page and serve it; `options` go to gradio's launch."""
    return site.serve(lambda: build(results), folder or PageFolder(), EXAMPLES, [CSS], **options)


if __name__ == "__main__":
    site.run(launch)
