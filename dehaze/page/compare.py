"""One photograph restored by several models, side by side."""

import html
from collections.abc import Iterator
from typing import Any

import gradio as gr

from dehaze.page import inference, scores
from dehaze.page.controls import PRIVATE, RESTORING, before_and_after
from dehaze.page.inference import optional
from dehaze.page.messages import explained, refusal, uploaded
from dehaze.page.models import chosen_model, model_choices
from dehaze.page.screen import finished, note, own_density, restore_for_screen
from dehaze.page.workshop import haze_density, mean, saved, visitor


def compare(upload: Any, models: Any, request: gr.Request | None) -> Iterator[list]:
    """Restore one photograph by several models; give the table, and a pair to compare for each model on offer."""
    path, offered = uploaded(upload, "photograph"), [name for _, name in model_choices()]
    who = visitor(request)
    if not models or not isinstance(models, list):
        raise refusal("There is no model yet. Choose one or more.")
    models = list(dict.fromkeys(map(chosen_model, models)))
    pairs: dict[str, Any] = {name: gr.ImageSlider(None, visible=False) for name in offered}
    rows: list[scores.Row] = []
    before_file = ""
    for name in models:
        yield [f"<p class='words'>{html.escape(name)} is at work …</p>{scores.ranking(rows)}", *pairs.values()]
        with explained("This photograph cannot be restored"):
            found = restore_for_screen(path, name, request)
            if not rows:
                common = mean(optional(haze_density, found.before, name, who)) if inference.haze_estimator() else None
                rows.append(scores.Row("photograph", scores.measured(found.before, who)))
                before_file = str(saved(found.before, f"{path.stem}_before.png"))
            # Without CLIP, each model has its own estimate.
            density = mean(optional(own_density, name, found.screen)) if common is None else common
            after = finished(name, found.screen, inference.adjustments(name, "photo"), 1.0)
            left = None if density is None else mean(optional(haze_density, after, name, who))
            rows.append(scores.Row(name, scores.measured(after, who) | {scores.DENSITY: left}, density, found.seconds))
            pair = before_file, str(saved(after, f"{path.stem}_{name}.png"))
        pairs = dict.fromkeys(offered, gr.skip()) | {name: gr.ImageSlider(pair, visible=True)}
    yield [f"{scores.ranking(rows)}{note()}", *pairs.values()]


def panel(photo: gr.Image) -> None:
    """Add the comparison of models on the photograph of another component to the Blocks that are being built."""
    with gr.Accordion("Compare models on this photograph", open=False, elem_id="compare-models"):
        names = [name for _, name in model_choices()]
        models = gr.CheckboxGroup(names, value=names, label="Models")
        button = gr.Button("Compare")
        table = gr.HTML(elem_classes="scores", elem_id="ranking", padding=False)
        with gr.Row():
            pairs = [before_and_after(label=name, height=360, visible=False, min_width=320) for name in names]
    button.click(compare, [photo, models], [table, *pairs], show_progress_on=table, **PRIVATE, **RESTORING)
