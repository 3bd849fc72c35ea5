"""Controls and settings of events that several tabs share."""

from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import gradio as gr

from dehaze.adjust import MAX_STRENGTH, MIN_STRENGTH, Adjustments
from dehaze.page.visitors import Stop

FORMATS = {"as it came": None, "PNG": ".png", "JPEG": ".jpg"}
# What events share. What restores takes turns, so as many may begin as there are threads for.
PRIVATE: dict[str, Any] = {"preprocess": False, "api_visibility": "private"}
RESTORING: dict[str, Any] = {"concurrency_id": "restoring", "concurrency_limit": 20}
LASTING: dict[str, Any] = PRIVATE | {"concurrency_id": "lasting", "concurrency_limit": 8}
AT_ONCE: dict[str, Any] = PRIVATE | {"queue": False}
LATEST: dict[str, Any] = PRIVATE | {"concurrency_id": "showing", "trigger_mode": "always_last"}
SHOWING: dict[str, Any] = PRIVATE | {"concurrency_id": "showing", "concurrency_limit": 8}
STOPPED = "<p class='words' role=status>Stopped.</p>"
# At once, in the browser: a message from the server could come after that of the end.
STOPPING = """html => html.includes("class='running'") ? "<p class='words' role=status>Stopping …</p>" : html"""


LOOKS = {"Photo": "photo", "Faithful": "faithful"}


def choose_strength() -> gr.Slider:
    info = "0 leaves the photograph as taken, 1 removes the haze, more removes more; below 0, haze is added"
    return gr.Slider(MIN_STRENGTH, MAX_STRENGTH, 1, step=0.05, label="Strength", info=info)


def choose_look() -> gr.Radio:
    info = "Photo: as bright as a camera would take the clear view. Faithful: as bright as your photograph"
    return gr.Radio(list(LOOKS.items()), value="photo", label="Look", info=info)


def choose_amounts(now: Adjustments) -> list[gr.Slider]:
    """Return sliders for the amounts of adjustments, which stand where they are `now`."""
    words = {
        "skies": ("Skies", "How smooth skies and fog stay"),
        "shadows": ("Shadows", "How far shadows are kept from turning black"),
        "colour": ("Colour", "How much of the haze's own colour is taken out"),
        "brightness": ("Brightness", "How far the result is made as bright as a camera would"),
    }
    return [
        gr.Slider(0, 1, amount, step=0.05, label=words[name][0], info=words[name][1])
        for name, amount in asdict(now).items()
    ]


def choose_format() -> gr.Radio:
    return gr.Radio(list(FORMATS), value=next(iter(FORMATS)), label="Download as")


def choose_privacy() -> gr.Checkbox:
    return gr.Checkbox(False, label="Strip metadata", info="Leaves out place, date, camera and all else but colours")


def before_and_after(height: int, **options: Any) -> gr.ImageSlider:
    return gr.ImageSlider(
        format="png", type="filepath", interactive=False, height=height, max_height=height, buttons=["fullscreen"],
        elem_classes="before-after", **options,
    )  # fmt: skip


def runs(start: gr.Button, end: gr.Button, stop: Stop, state: gr.HTML) -> Callable:
    """Have buttons start a run and ask it to end, with what becomes of it in `state`; return the event to run after."""

    def begin(request: gr.Request) -> str:
        stop.begin(request)
        return bar(0, 1, "Waiting for its turn …", running=True)

    def ask(request: gr.Request) -> None:
        stop.ask(request)

    end.click(ask, **AT_ONCE)
    end.click(None, state, state, js=STOPPING)
    return start.click(begin, None, state, **AT_ONCE).success


def bar(done: int, total: int, words: str, running: bool = False) -> str:
    """Render how far something has come, in words and as a bar; a run that goes on can be stopped."""
    mark = " class='running'" * running
    progress = f"<progress{mark} aria-label='Progress' value={done} max={total}></progress>"
    return f"<p class='words' role=status>{words}</p>{progress}"
