"""The site around the tabs: its look, its door, its temporary folder, its start and end."""

import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator, MutableMapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from threading import Thread
from typing import Any, NoReturn

import gradio as gr
from gradio import themes
from PIL import Image
from starlette.middleware import Middleware

from dehaze.io.photo import read_photo
from dehaze.memory import keep_freed_memory
from dehaze.page.door import Door
from dehaze.page.folder import PageFolder
from dehaze.page.inference import dehazer, infer, optional
from dehaze.page.models import model_choices
from dehaze.page.scores import measured
from dehaze.page.visitors import Allowance
from dehaze.page.workshop import (
    ALLOWED,
    ALLOWED_SECONDS,
    KEPT_SECONDS,
    MAX_FILE_BYTES,
    MAX_MEGAPIXELS,
    PROXIES,
    haze_density,
    turns,
)

ALLOWED_UPLOADS = {"megabytes": 4000}  # of one visitor, in as many seconds as ALLOWED counts
VISITORS_KEPT = 100  # whose last results are kept: some 4 MB of memory each, and pixels on disk
SWEEP_SECONDS = 600
QUEUE = 100  # requests that may wait; the next one is told to come back
THREADS = 60
HERE = Path(__file__).parent
TITLE = "Dehaze"
INTRO = """
<h1>Dehaze</h1>
<p>Drop in a photograph that haze, fog or smog has washed out, and take it home clear.</p>
"""
FOOTER = f"""
<p>Haze hides what is behind it: where it is thick, no software can bring the details back, and some noise may show.
A photograph may have up to {MAX_MEGAPIXELS} megapixels and {MAX_FILE_BYTES // 1_000_000} MB. Each visitor may have
{ALLOWED["photographs"]} photographs or {ALLOWED["megapixels"]} megapixels restored in {ALLOWED_SECONDS // 60} minutes.
Photographs are restored on this server, shown to nobody else, and deleted within two hours. Free software under the
Apache License 2.0.</p>
"""


@contextmanager
def frame(static: Sequence[Path]) -> Iterator[gr.Blocks]:
    """Build the page around the tabs that are added within the context; `static` files are served as they are."""
    gr.set_static_paths(list(static))
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
        gr.HTML(INTRO, elem_id="intro", padding=False)
        yield page
        gr.HTML(FOOTER, elem_id="footer", padding=False)
    page.queue(max_size=QUEUE, api_open=False)


def serve(
    build: Callable[[], gr.Blocks], folder: PageFolder, static: Sequence[Path], styles: Sequence[Path], **options: Any
) -> gr.Blocks:
    """Build a page and serve it behind its door, with temporary files in `folder`; `options` go to gradio's launch."""
    folder.open()  # before, as components keep where their files go
    page = build()
    folder.keep_swept(KEPT_SECONDS, SWEEP_SECONDS)
    door = Middleware(
        Door, folder=folder, static=static, waiting=lambda: under_way(page), proxies=PROXIES,
        uploads=Allowance(ALLOWED_UPLOADS, ALLOWED_SECONDS),
    )  # fmt: skip
    Thread(target=optional, args=(warm_up, static[0]), name="warm-up", daemon=True).start()
    page.launch(
        theme=theme(), css_paths=[HERE / "page.css", *styles], js=(HERE / "page.js").read_text(encoding="utf-8"),
        head_paths=[HERE / "head.html"], max_file_size=MAX_FILE_BYTES, state_session_capacity=VISITORS_KEPT,
        max_threads=THREADS, allowed_paths=[], footer_links=["api"], run_history=False, enable_monitoring=False,
        ssr_mode=False, app_kwargs={"middleware": [door], "lifespan": lambda _: folder.until_closed()}, **options,
    )  # fmt: skip
    return page


def under_way(page: gr.Blocks) -> Iterator[MutableMapping[str, Any]]:
    """List the requests (as ASGI scopes) of the events in the queue and at work."""
    queue = page._queue
    for events in (*(waiting.queue for waiting in queue.event_queue_per_concurrency_id.values()), *queue.active_jobs):
        yield from (event.request.scope for event in events or ())


def warm_up(photograph: Path) -> None:
    """Load what the first photograph needs."""
    model, picture = model_choices()[0][1], Image.open(photograph).convert("RGB")
    picture.thumbnail((256, 256))
    dehazer(model)
    if "spaces" not in sys.modules:  # which lends its GPU to visitors alone
        with turns(""):
            infer(model, read_photo(picture))
    optional(haze_density, picture, model)
    measured(picture)


def free_port() -> int | None:
    """Return the port that was asked for, None for the next free one. Ends the program if it cannot be had."""
    asked = os.environ.get("GRADIO_SERVER_PORT")
    try:
        if asked is not None:
            with socket.create_server(("127.0.0.1", int(asked))):
                pass
        return None if asked is None else int(asked)
    except (OSError, OverflowError, ValueError) as error:
        sys.exit(f"GRADIO_SERVER_PORT is {asked}, and this port cannot be had ({error}). Choose another, such as 7861.")


def run(launch: Callable[..., Any]) -> None:
    """Run the page as the program of this process: `launch` takes its folder and its port."""
    port, folder = free_port(), PageFolder()

    def end(*_: Any) -> NoReturn:
        """Empty the folder and end at once: threads that compute would make an orderly end abort."""
        folder.close()
        os._exit(0)

    signal.signal(signal.SIGTERM, end)
    keep_freed_memory()
    launch(folder=folder, server_port=port)


def theme() -> themes.Base:
    """Return the colours of the sky, with enough contrast, and the visitor's own fonts."""
    return themes.Default(
        primary_hue="sky",
        secondary_hue="sky",
        neutral_hue="slate",
        font=["system-ui", "sans-serif"],
        font_mono=["ui-monospace", "monospace"],
    ).set(
        body_text_color_subdued="*neutral_500",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_600",
    )
