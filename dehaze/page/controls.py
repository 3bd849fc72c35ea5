"""Controls and settings of events that several tabs share."""

from collections.abc import Callable
from typing import Any

import gradio as gr

from dehaze.page.visitors import Stop

FORMATS = {"as it came": None, "PNG": ".png", "JPEG": ".jpg"}
# What events share. What restores takes turns, so as many may begin as there are threads for.
PRIVATE = {"preprocess": False, "api_visibility": "private"}
RESTORING = {"concurrency_id": "restoring", "concurrency_limit": 20}
LASTING = PRIVATE | {"concurrency_id": "lasting", "concurrency_limit": 8}
AT_ONCE = PRIVATE | {"queue": False}
SHOWING = PRIVATE | {"concurrency_id": "showing", "concurrency_limit": 8}
STOPPED = "<p class='words' role=status>Stopped.</p>"
STOPPING = "<p class='words' role=status>Stopping …</p>"


def choose_strength() -> gr.Slider:
    return gr.Slider(0, 1, 1, step=0.05, label="Strength", info="0 leaves all haze, 1 removes the most")


def choose_format() -> gr.Radio:
    return gr.Radio(list(FORMATS), value=next(iter(FORMATS)), label="Download as")


def before_and_after(height: int, **options: Any) -> gr.ImageSlider:
    return gr.ImageSlider(
        format="png", type="filepath", interactive=False, height=height, max_height=height, buttons=["fullscreen"],
        elem_classes="before-after", **options,
    )  # fmt: skip


def start_and_stop(stop: Stop) -> tuple[Callable, Callable]:
    """Return the events by which a page starts a run and asks it to end, which may still be waiting for its turn."""

    def begin(request: gr.Request) -> None:
        stop.begin(request)

    def end(request: gr.Request) -> Any:
        return STOPPING if stop.ask(request) else gr.skip()

    return begin, end


def bar(done: int, total: int, words: str) -> str:
    """Render how far something has come, in words and as a bar."""
    progress = f"<progress aria-label='Progress' value={done} max={total}></progress>"
    return f"<p class='words' role=status>{words}</p>{progress}"
