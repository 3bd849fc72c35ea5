"""The tab of one photograph: restored in full, compared by a slider, scored, downloaded at any strength."""

import csv
import html
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from dehaze.io.names import density_name, output_name
from dehaze.page import compare, inference, scores
from dehaze.page.controls import (
    AT_ONCE,
    FORMATS,
    PRIVATE,
    RESTORING,
    SHOWING,
    before_and_after,
    choose_format,
    choose_privacy,
    choose_strength,
)
from dehaze.page.inference import optional
from dehaze.page.kept import Kept
from dehaze.page.messages import chosen, chosen_strength, explained, uploaded
from dehaze.page.models import choose_model, chosen_model
from dehaze.page.preview import colour_table, density_map
from dehaze.page.program import remove_haze
from dehaze.page.screen import note, restore_for_screen
from dehaze.page.workshop import KEPT_SECONDS, haze_density, in_cache, mean, saved, turns, visitor

WAITING = "<p>Scores before and after appear here.</p>"
# A phone shows the result below the button.
SCROLL = "() => { if (innerWidth < 700) document.querySelector('#slider').scrollIntoView({behavior: 'smooth'}) }"
# The restored picture lies over the hazy one: its opacity is the strength, at once and without the server.
STRENGTH = "strength => document.documentElement.style.setProperty('--strength', strength ?? 1)"


@dataclass(frozen=True)
class Result:
    """What a visitor's session keeps of a run, at full strength, so that the strength can be changed afterwards."""

    name: str  # of the file that was given
    model: str
    summary: str
    kept: Kept
    before: Image.Image  # the copies that are scored
    after: Image.Image
    density: float | None
    visitor: str
    folder: Path = field(default_factory=lambda: in_cache(""))  # of its download: the last replaces the one before

    @cached_property
    def scores_before(self) -> scores.Scores:
        return scores.measured(self.before, self.visitor) | {scores.DENSITY: self.density}


def run(upload: Any, model: Any, request: gr.Request | None) -> tuple[Result, tuple[Path, Path], Path | None]:
    """Restore a photograph in full; return what the session keeps, the pair to compare, and the haze density."""
    path, model = uploaded(upload, "photograph"), chosen_model(model)
    with explained("This photograph cannot be restored"):
        found = restore_for_screen(path, model, request)
        pair = saved(found.before, f"{path.stem}_before.png"), saved(found.after, f"{path.stem}_after.png")
        density = (
            optional(haze_density, found.before, model, visitor(request))
            if inference.haze_estimator()
            else found.density
        )
        restored = f"{found.megapixels:.1f} megapixels restored by {model} in {found.seconds:.1f} s."
        result = Result(
            name=path.name,
            model=model,
            summary=html.escape(" ".join([restored, *found.notes])),
            kept=found.kept,
            before=scores.reduced(found.before),
            after=scores.reduced(found.after),
            density=mean(density),
            visitor=visitor(request),
        )
    map_ = optional(saved_density, density, found.before, density_name(path.name))
    return result, pair, map_


def saved_density(density: np.ndarray | None, picture: Image.Image, name: str) -> Path | None:
    return None if density is None else saved(density_map(density, picture, scores.SIDE), name)


def score(result: Result | None, strength: Any) -> str | dict[str, Any]:
    """Score a result at a strength."""
    if result is None or strength is None:  # the number was deleted, and another is being typed
        return gr.skip()
    after = Image.blend(result.before, result.after, chosen_strength(strength))
    left = None if result.density is None else mean(optional(haze_density, after, result.model, result.visitor))
    measures = scores.measured(after, result.visitor) | {scores.DENSITY: left}
    words = ""
    if result.density is not None and left is not None:
        old, new = scores.in_words(result.density), scores.in_words(left)
        words = f"<p class='words'>{old.capitalize()} before, {new} after.</p>"
    return f"{words}{scores.comparison(result.scores_before, measures)}<p>{result.summary}</p>{note()}"


def prepare(
    result: Result | None, strength: Any, form: Any, request: gr.Request | None = None, strip_metadata: Any = False
) -> Iterator[gr.DownloadButton]:
    """Write a result at a strength as the file to take home; it replaces the one before."""
    if result is None or strength is None:
        return
    strength, form = chosen_strength(strength), chosen(form, FORMATS, "format")
    yield gr.DownloadButton("Preparing the download …", interactive=False)
    with explained("This photograph cannot be saved"):
        result.folder.mkdir(exist_ok=True)
        for former in result.folder.iterdir():
            former.unlink()
        with turns(visitor(request)):
            path, (height, width) = write(result, strength, form, strip_metadata is True)
    yield gr.DownloadButton(f"Download {path.suffix[1:].upper()}, {width}×{height}", path, interactive=True)


def write(result: Result, strength: float, form: str, strip_metadata: bool) -> tuple[Path, tuple[int, int]]:
    """Write a result at a strength; return the file, and the photograph's height and width."""
    photo = result.kept.at(strength)
    photo = photo.without_metadata() if strip_metadata else photo
    path = result.folder / output_name(result.name, photo, FORMATS[form])
    return photo.save(path), photo.pixels.shape[:2]


def tab(sample: Path) -> None:
    """Add the tab to the Blocks that are being built, with the photographs of the `sample` set as examples."""
    with gr.Tab("Photograph"):
        result = gr.State(time_to_live=KEPT_SECONDS)
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                photo = gr.Image(
                    label="Your photograph", alt_text="Your photograph", type="filepath", image_mode=None, height=300,
                    buttons=[], elem_id="photo",
                )  # fmt: skip
                model = choose_model()
                strength = choose_strength()
                button = gr.Button("Remove haze", variant="primary", size="lg")
                sources = example_sources(sample)
                examples = gr.Examples(
                    [str(sample / source["file"]) for source in sources], photo, label="Or try one of these",
                    elem_id="examples", api_visibility="private",
                )  # fmt: skip
                gr.HTML(credit_list(sources), elem_id="credits", padding=False)
            with gr.Column(scale=3, min_width=320):
                slider = before_and_after(label="Before and after", height=480, elem_id="slider")
                with gr.Row():
                    form = choose_format()
                    privacy = choose_privacy()
                download = gr.DownloadButton("Download", interactive=False, elem_id="download")
                with gr.Row():
                    with gr.Column(min_width=280):
                        density = gr.Image(
                            label="Haze density", alt_text="Map of the estimated haze density", format="png",
                            height=260, interactive=False, buttons=["fullscreen"], elem_id="density",
                        )  # fmt: skip
                        gr.HTML(legend(), elem_id="legend-box", padding=False)
                    with gr.Column(min_width=280):
                        scores = gr.HTML(WAITING, elem_id="scores", elem_classes="scores", padding=False)
        compare.panel(photo)

        for start in (button.click, examples.load_input_event.success):
            ran = start(run, [photo, model], [result, slider, density], show_progress_on=slider, **PRIVATE, **RESTORING)
            ran.success(score, [result, strength], scores, **AT_ONCE)
            ran.success(prepare, [result, strength, form, privacy], download, **SHOWING)
            start(None, js=SCROLL)
        strength.change(None, strength, js=STRENGTH)
        strength.change(score, [result, strength], scores, **AT_ONCE)
        for changed in (strength.change, form.change, privacy.change):
            changed(prepare, [result, strength, form, privacy], download, **SHOWING)

        # The same for programs, which want other things than the page shows.
        with gr.Row(visible=False):
            file = gr.File(label="photo")
            answers = [gr.File(label="restored"), gr.File(label="haze density"), gr.JSON(label="facts and scores")]
            called = gr.Button()
        called.click(remove_haze, [file, model, strength], answers, api_name="dehaze", preprocess=False, **RESTORING)


def example_sources(sample: Path) -> list[dict[str, str]]:
    """List the real hazy photographs of the sample set: file, title, author, licence, source."""
    with (sample / "sources.csv").open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if row["file"].startswith("real/")]


def credit_list(sources: list[dict[str, str]]) -> str:
    """Name the titles, authors and licences of the example photographs."""
    lines = []
    for source in sources:
        title, author, licence, url = (html.escape(source[key]) for key in ("title", "author", "licence", "source"))
        link = f"<a href='{url}' target='_blank' rel='noopener'>{title}</a>" if url else title
        lines.append(f"{link}, {author} ({licence.removeprefix('LicenseRef-')})")
    return f"<details><summary>Who took these photographs</summary><p>{'<br>'.join(lines)}</p></details>"


def legend() -> str:
    """Return a bar that explains the colours of the haze density."""
    colours = ", ".join(f"rgb({r} {g} {b})" for r, g, b in colour_table()[::32])
    bar = f"<div style='background: linear-gradient(90deg, {colours})'></div>"
    return f"<div id='legend'>clear air{bar}thick haze</div>"
