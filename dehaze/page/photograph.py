"""The tab of one photograph: compared by a slider, scored, and downloaded in any look and at any strength."""

import csv
import html
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import gradio as gr
import numpy as np
from PIL import Image

from dehaze.adjust import Adjustments
from dehaze.io.names import density_name, output_name
from dehaze.page import compare, inference, scores
from dehaze.page.controls import (
    AT_ONCE,
    FORMATS,
    LATEST,
    LOOKS,
    PRIVATE,
    RESTORING,
    SHOWING,
    before_and_after,
    choose_amounts,
    choose_format,
    choose_look,
    choose_privacy,
    choose_strength,
)
from dehaze.page.inference import adjustments, optional
from dehaze.page.kept import Kept
from dehaze.page.messages import chosen, chosen_adjustments, chosen_strength, explained, uploaded
from dehaze.page.models import choose_model, chosen_model
from dehaze.page.preview import colour_table, density_map
from dehaze.page.program import remove_haze
from dehaze.page.screen import finished, note, own_density, restore_for_screen
from dehaze.page.visitors import scoring
from dehaze.page.workshop import KEPT_SECONDS, haze_density, in_cache, mean, saved, turns, visitor

WAITING = "<p>Scores before and after appear here.</p>"
# A phone shows the result below the button.
SCROLL = "() => { if (innerWidth < 700) document.querySelector('#slider').scrollIntoView({behavior: 'smooth'}) }"


@dataclass(frozen=True)
class Result:
    """What a visitor's session keeps of a run, so that it can be finished in another way afterwards."""

    name: str  # of the file that was given
    model: str
    summary: str
    kept: Kept  # the photograph,
    screen: Kept  # and a small copy
    before: Image.Image  # the copy that is scored
    before_file: Path
    density: float | None
    visitor: str
    folder: Path = field(default_factory=lambda: in_cache(""))  # of its download: the last replaces the one before

    @cached_property
    def scores_before(self) -> scores.Scores:
        return scores.measured(self.before, self.visitor) | {scores.DENSITY: self.density}


def run(
    upload: Any, model: Any, request: gr.Request | None, *finish: Any
) -> tuple[Result, tuple[Path, Path], Path | None]:
    """Restore a photograph; return what the session keeps, the pair to compare, and the haze density.

    `finish` is for `chosen_finish`.
    """
    path, model = uploaded(upload, "photograph"), chosen_model(model)
    strength, amounts = chosen_finish(model, *finish)
    with explained("This photograph cannot be restored"):
        found = restore_for_screen(path, model, request)
        density = optional(own_density, model, found.screen)
        if inference.haze_estimator():
            density = optional(haze_density, found.before, model, visitor(request))
        restored = f"{found.megapixels:.1f} megapixels restored by {model} in {found.seconds:.1f} s."
        result = Result(
            name=path.name,
            model=model,
            summary=html.escape(" ".join([restored, *found.notes])),
            kept=found.kept,
            screen=found.screen,
            before=scores.reduced(found.before),
            before_file=saved(found.before, f"{path.stem}_before.png"),
            density=mean(density),
            visitor=visitor(request),
        )
        pair = compared(result, finished(model, found.screen, amounts, strength))
    map_ = optional(saved_density, density, found.before, density_name(path.name))
    return result, pair, map_


def compared(result: Result, after: Image.Image) -> tuple[Path, Path]:
    return result.before_file, saved(after, f"{Path(result.name).stem}_after.png")


def saved_density(density: np.ndarray | None, picture: Image.Image, name: str) -> Path | None:
    return None if density is None else saved(density_map(density, picture, scores.SIDE), name)


def chosen_finish(model: str, strength: Any = 1.0, *amounts: Any) -> tuple[float, Adjustments]:
    """Return the strength and the adjustments that were chosen, by default those of the look photo."""
    return chosen_strength(strength), chosen_adjustments(*amounts) if amounts else adjustments(model, "photo")


def show(result: Result | None, *finish: Any) -> Any:
    """Finish a result anew; return the pair to compare."""
    if result is None or None in finish:  # the number was deleted, and another is being typed
        return gr.skip()
    strength, amounts = chosen_finish(result.model, *finish)
    with explained("This photograph cannot be shown"), scoring(result.visitor):
        return compared(result, finished(result.model, result.screen, amounts, strength))


def score(result: Result | None, *finish: Any) -> str | dict[str, Any]:
    """Score a result, finished in this way."""
    if result is None or None in finish:
        return gr.skip()
    strength, amounts = chosen_finish(result.model, *finish)
    after = scores.reduced(finished(result.model, result.screen, amounts, strength))
    left = None if result.density is None else mean(optional(haze_density, after, result.model, result.visitor))
    measures = scores.measured(after, result.visitor) | {scores.DENSITY: left}
    words = ""
    if result.density is not None and left is not None:
        old, new = scores.in_words(result.density), scores.in_words(left)
        words = f"<p class='words'>{old.capitalize()} before, {new} after.</p>"
    return f"{words}{scores.comparison(result.scores_before, measures)}<p>{result.summary}</p>{note()}"


def prepare(
    result: Result | None, form: Any, strip_metadata: Any = False, request: gr.Request | None = None, *finish: Any
) -> Iterator[gr.DownloadButton]:
    """Write a result, finished in this way, as the file to take home; it replaces the one before."""
    if result is None or None in finish:
        return
    (strength, amounts), form = chosen_finish(result.model, *finish), chosen(form, FORMATS, "format")
    yield gr.DownloadButton("Preparing the download …", interactive=False)
    with explained("This photograph cannot be saved"):
        result.folder.mkdir(exist_ok=True)
        for former in result.folder.iterdir():
            former.unlink()
        with turns(visitor(request)):
            photo = inference.finish(result.model, result.kept, amounts, strength)
            photo = photo.without_metadata() if strip_metadata is True else photo
            path = photo.save(result.folder / output_name(result.name, photo, FORMATS[form]))
            height, width = photo.pixels.shape[:2]
    yield gr.DownloadButton(f"Download {path.suffix[1:].upper()}, {width}×{height}", path, interactive=True)


def amounts_of(model: Any, look: Any) -> list[float]:
    """Return the amounts of a look's adjustments, to which the sliders go."""
    return list(asdict(adjustments(chosen_model(model), chosen(look, LOOKS.values(), "look"))).values())


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
                look = choose_look()
                strength = choose_strength()
                with gr.Accordion("Adjust", open=False, elem_id="adjust"):
                    amounts = choose_amounts(adjustments(model.value, look.value))
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

        finish, saving = [strength, *amounts], [result, form, privacy]
        for start in (button.click, examples.load_input_event.success):
            ran = start(
                run, [photo, model, *finish], [result, slider, density], show_progress_on=slider, **PRIVATE, **RESTORING
            )
            ran.success(score, [result, *finish], scores, **AT_ONCE)
            ran.success(prepare, [*saving, *finish], download, **SHOWING)
            start(None, js=SCROLL)
        told = [gr.on([look.input, model.input], amounts_of, [model, look], amounts, **AT_ONCE).success]
        for changed in (*(each.input for each in finish), *told):
            changed(show, [result, *finish], slider, show_progress="hidden", **LATEST).success(
                score, [result, *finish], scores, **AT_ONCE
            ).success(prepare, [*saving, *finish], download, **SHOWING)
        for changed in (form.change, privacy.change):
            changed(prepare, [*saving, *finish], download, **SHOWING)

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
