"""The page: drop in a hazy photograph, compare before and after, take the clear one home; and the leaderboard."""

import csv
import html
import os
import re
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import takewhile
from pathlib import Path
from threading import Lock
from typing import Any
from uuid import uuid4

try:  # there on a ZeroGPU Space, where it must come before torch
    from spaces import GPU
except ImportError:

    def GPU(function):
        return function


import gradio as gr
import numpy as np
from gradio.utils import get_space, get_upload_folder
from huggingface_hub import ModelCard
from PIL import Image

import dehaze
from bench.record import RESULTS, Record
from dehaze import batch, hub, image, video
from dehaze.allowance import Allowance
from dehaze.density import HazeDensity, load_density
from dehaze.errors import DehazeError
from dehaze.kept import Kept
from dehaze.memory import keep_freed_memory
from dehaze.networks import NETWORKS
from dehaze.preview import colour_table, density_map, preview
from leaderboard import quality, submit, view

MAX_MEGAPIXELS = 60
MIN_SIDE = 16
MAX_FILE = "100mb"
# What the memory holds: these many models, a small CLIP, one photograph at work, some 4 MB for each visitor whose last
# result is kept; its pixels are on disk.
MODELS_KEPT = 3
VISITORS_KEPT = 100
KEPT_SECONDS = 3600
QUEUE = 100  # requests that may wait; the next one is told to come back
ALLOWED_MEGAPIXELS, ALLOWED_SECONDS = 1500, 600  # what one visitor may have restored in this time
PREVIEW_SIDE = 1600  # what the browser is shown; the download has every pixel
SAMPLE = Path(__file__).parent / "bench" / "sample"
LIMITS = batch.Limits(megapixels=MAX_MEGAPIXELS)

# What the errors advise that visitors cannot do.
NOT_FOR_VISITORS = [
    (", or raise max_megapixels", ""),
    ("Install it with `pip install pillow-heif`, or convert", "Convert"),
]
FORMATS = {"as it came": None, "PNG": ".png", "JPEG": ".jpg"}


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

    @cached_property
    def scores_before(self) -> quality.Scores:
        return quality.measure(self.before) | {quality.DENSITY: self.density}


allowance = Allowance(ALLOWED_MEGAPIXELS, ALLOWED_SECONDS)
turn = Lock()  # one photograph at work at a time, however many wait


def visitor(request: gr.Request | None) -> str:
    """Tell visitors apart by their address; on a Space, all come through a proxy that names it."""
    forwarded = request.headers.get("x-forwarded-for", "").split(",")[0] if request and get_space() else ""
    return forwarded.strip() or (request.client.host if request and request.client else "")


# A photograph in


@lru_cache(MODELS_KEPT)
def dehazer(model: str) -> dehaze.Dehazer:
    return dehaze.load(model, fast=True)  # a large photograph shall not keep the others waiting for minutes


@lru_cache(1)
def haze_teller() -> HazeDensity | None:
    """Load the CLIP model that tells the haze of any picture and favours no model; None where none ships."""
    return load_density() if hub.shipped("clip") else None


@GPU
def infer(model: str, photo: image.Photo, strength: float = 1.0) -> dehaze.Restoration:
    return dehazer(model)(photo, strength)


@GPU
def infer_clip(model: str, clip: video.Clip, target: Path, strength: float) -> Iterator[int]:
    yield from video.restore(clip, target, dehazer(model), strength, turn=lambda: turn)


def restore(model: str, photo: image.Photo, strength: float, request: gr.Request | None) -> dehaze.Restoration:
    """Restore a photograph when its turn comes. Raises DehazeError if its visitor has had enough."""
    allowance.take(visitor(request), megapixels(photo))
    with turn:
        return infer(model, photo, strength)


@contextmanager
def explained(title: str, path: Path) -> Iterator[None]:
    """Turn the errors that say what to do into messages on the page, without the server's folders in them."""
    try:
        yield
    except (DehazeError, ValueError) as error:
        message = for_visitors(str(error).replace(str(path), path.name))
        raise gr.Error(html.escape(message, quote=False), 30, title=title, print_exception=False) from None


def for_visitors(message: str) -> str:
    """Leave out of an error what only those who run the page can do."""
    for advice, instead in NOT_FOR_VISITORS:
        message = message.replace(advice, instead)
    return message


def given(upload: Any, what: str) -> Any:
    """Return what was uploaded. Raises gr.Error if that is nothing."""
    if not upload:
        raise gr.Error(f"There is no {what} yet. Add one first.", title=f"No {what}", print_exception=False)
    return upload


def read(upload: dict[str, Any] | None) -> tuple[image.Photo, Path]:
    """Read an uploaded file. Raises gr.Error that says what is wrong with it."""
    path = Path(given(upload, "photograph")["path"])
    with explained("This photograph cannot be read", path):
        photo = image.read(path, max_megapixels=MAX_MEGAPIXELS)
        height, width = photo.pixels.shape[:2]
        if min(height, width) < MIN_SIDE:
            raise DehazeError(f"{path} has {width}×{height} pixels. Give one with {MIN_SIDE} or more on each side.")
    return photo, path


def megapixels(photo: image.Photo) -> float:
    return photo.pixels[..., 0].size / 1e6


def in_cache(name: str) -> Path:
    """Return a path in the folder that the page serves files from and empties in time."""
    folder = Path(get_upload_folder()) / uuid4().hex
    folder.mkdir(parents=True)
    return folder / name


def saved(picture: Image.Image, name: str) -> Path:
    path = in_cache(name)
    picture.save(path, compress_level=3)
    return path


# Events of the page


def run(upload: dict | None, model: str, request: gr.Request) -> tuple[Result, tuple[Path, Path], Path | None]:
    """Restore a photograph in full; return what the session keeps, the pair to compare, and the haze density."""
    photo, path = read(upload)
    with explained("This photograph cannot be restored", path):
        restoration = restore(model, photo, 1.0, request)
    before, after = preview(photo, PREVIEW_SIDE), preview(restoration.photo, PREVIEW_SIDE)
    density = haze_density(before, model) if haze_teller() else restoration.density
    result = Result(
        name=path.name,
        model=model,
        summary=f"{megapixels(photo):.1f} megapixels restored by {html.escape(model)} in {restoration.seconds:.1f} s.",
        kept=Kept.of(photo, restoration),
        before=quality.reduced(before),
        after=quality.reduced(after),
        density=mean(density),
    )
    pair = saved(before, f"{path.stem}_before.png"), saved(after, f"{path.stem}_after.png")
    if density is None:
        return result, pair, None
    return result, pair, saved(density_map(density, before, quality.SIDE), f"{path.stem}_haze_density.png")


def score(result: Result | None, strength: float | None) -> str:
    """Score a result at a strength."""
    if result is None or strength is None:  # the number was deleted, and another is being typed
        return gr.skip()
    after = Image.blend(result.before, result.after, min(max(strength, 0), 1))
    left = None if result.density is None else mean(haze_density(after, result.model))
    scores = quality.measure(after) | {quality.DENSITY: left}
    words = ""
    if left is not None:
        old, new = quality.in_words(result.density), quality.in_words(left)
        words = f"<p class='words'>{old.capitalize()} before, {new} after.</p>"
    return f"{words}{quality.comparison(result.scores_before, scores)}<p>{result.summary}</p>{note()}"


def haze_density(picture: Image.Image, model: str) -> np.ndarray | None:
    """Estimate the haze density [H,W] of a small copy: by CLIP where one ships, else by the model, if it can."""
    photo = image.read(quality.reduced(picture))
    with turn:
        if teller := haze_teller():
            return teller.map(photo.tensor())[0, 0].numpy()
        return infer(model, photo).density


def mean(density: np.ndarray | None) -> float | None:
    return None if density is None else float(density.mean())


def note() -> str:
    told = "told by a CLIP model, whichever model restored" if haze_teller() else "the model's own estimate"
    return quality.note(told)


def prepare(result: Result | None, strength: float | None, form: str) -> Iterator[gr.DownloadButton]:
    """Write a result at a strength as the file to take home."""
    if result is None or strength is None:
        return
    yield gr.DownloadButton("Preparing the download …", interactive=False)
    photo = result.kept.at(min(max(strength, 0), 1))
    path = in_cache(batch.output_name(result.name, photo, FORMATS[form]))
    with explained("This photograph cannot be saved", path):
        photo.save(path)
    height, width = photo.pixels.shape[:2]
    yield gr.DownloadButton(f"Download {path.suffix[1:].upper()}, {width}×{height}", path, interactive=True)


def compare(upload: dict | None, models: list[str], request: gr.Request) -> Iterator[list]:
    """Restore one photograph by several models; give the table, and a pair to compare for each model on offer."""
    photo, path = read(upload)
    given(models, "model")
    before = preview(photo, PREVIEW_SIDE)
    before_file = saved(before, f"{path.stem}_before.png")
    offered = [name for _, name in model_choices()]
    pairs: dict[str, Any] = {name: gr.ImageSlider(None, visible=False) for name in offered}
    common = mean(haze_density(before, models[0])) if haze_teller() else None  # else each model has its own estimate
    rows = [quality.Row("photograph", quality.measure(before))]
    for name in models:
        yield [f"<p class='words'>{html.escape(name)} is at work …</p>{quality.ranking(rows)}", *pairs.values()]
        with explained("This photograph cannot be restored", path):
            restoration = restore(name, photo, 1.0, request)
        after = preview(restoration.photo, PREVIEW_SIDE)
        density = mean(restoration.density) if common is None else common
        left = None if density is None else mean(haze_density(after, name))
        scores = quality.measure(after) | {quality.DENSITY: left}
        rows.append(quality.Row(name, scores, density, restoration.seconds))
        pair = before_file, saved(after, f"{path.stem}_{name}.png")
        pairs = dict.fromkeys(offered, gr.skip()) | {name: gr.ImageSlider(pair, visible=True)}
    yield [f"{quality.ranking(rows)}{note()}", *pairs.values()]


class Stop:
    """What a stop button asks of the run of its page: to end after the photograph or frame at hand.

    Where gradio cancels a run instead, the page closes its stream of messages, and those of what it runs next may be
    lost with it.
    """

    def __init__(self) -> None:
        self._pages: set[str | None] = set()

    def ask(self, request: gr.Request) -> None:
        self._pages.add(request.session_hash)

    def withdraw(self, request: gr.Request) -> None:
        self._pages.discard(request.session_hash)

    def asked(self, request: gr.Request | None) -> bool:
        return request is not None and request.session_hash in self._pages


stop_batch, stop_video = Stop(), Stop()


def restore_batch(uploads: list[dict] | None, model: str, strength: float, form: str, request: gr.Request) -> Iterator:
    """Restore many photographs; give the status of each, and at last all results, or those so far, in one archive."""
    paths = [Path(upload["path"]) for upload in given(uploads, "photograph")]
    with explained("These photographs cannot be taken", paths[0]):
        sources = batch.find(paths, LIMITS)
    target, outcomes = in_cache("dehazed.zip"), []
    yield status(sources, outcomes), gr.DownloadButton("Download all", interactive=False)
    results = batch.restore(
        takewhile(lambda _: not stop_batch.asked(request), sources),
        lambda photo: restore(model, photo, strength, request), target, FORMATS[form], LIMITS,
    )  # fmt: skip
    for outcome in results:
        outcomes.append(outcome)
        yield status(sources, outcomes), gr.skip()
    if len(outcomes) < len(sources):
        yield status(sources, outcomes, stopped=True), gr.skip()
    if count := sum(outcome.written is not None for outcome in outcomes):
        label = f"Download {count} photographs, {target.stat().st_size / 1e6:.1f} MB"
        yield gr.skip(), gr.DownloadButton(label, target, interactive=True)


def status(sources: list[batch.Source], outcomes: list[batch.Outcome], stopped: bool = False) -> str:
    """Render how far a batch has come, and what became of each photograph."""
    rows = []
    for i, source in enumerate(sources):
        if i >= len(outcomes):
            kind, text = "", "not restored" if stopped else "at work …" if i == len(outcomes) else "waiting"
        elif error := outcomes[i].error:
            kind, text = "worse", html.escape(for_visitors(error), quote=False)
        else:
            kind, text = "better", f"{outcomes[i].megapixels:.1f} megapixels in {outcomes[i].seconds:.1f} s"
        rows.append(f"<tr><th scope=row>{html.escape(source.name)}</th><td class='{kind}'>{text}</td></tr>")
    failed = sum(outcome.error is not None for outcome in outcomes)
    words = f"{'Stopped: ' * stopped}{len(outcomes)} of {len(sources)} done" + (f", {failed} failed" if failed else "")
    return f"{bar(len(outcomes), len(sources), words)}<table><tbody>{''.join(rows)}</tbody></table>"


def bar(done: int, total: int, words: str) -> str:
    """Render how far something has come, in words and as a bar."""
    progress = f"<progress aria-label='Progress' value={done} max={total}></progress>"
    return f"<p class='words' role=status>{words}</p>{progress}"


def restore_video(upload: dict | None, model: str, strength: float, request: gr.Request) -> Iterator[tuple]:
    """Restore a clip; give how far it has come, and at last the clip."""
    path = Path(given(upload, "clip")["path"])
    target, done, began = in_cache(f"{path.stem}_dehazed.webm"), 0, time.perf_counter()
    with explained("This clip cannot be restored", path):
        clip = video.probe(path)
        shrink = min(1, video.MAX_SIDE / max(clip.width, clip.height))
        allowance.take(visitor(request), clip.count * clip.width * clip.height * shrink**2 / 1e6)
        with closing(infer_clip(model, clip, target, strength)) as frames:
            for done in frames:
                if stop_video.asked(request):
                    yield STOPPED, gr.skip()
                    return
                spent = time.perf_counter() - began
                words = f"{done} of about {clip.count} frames, {spent:.0f} s"
                yield bar(done, max(done, clip.count), words), gr.skip()
    yield bar(done, done, f"{done} frames restored in {time.perf_counter() - began:.0f} s"), target


def restore_as(record: Record, path: Path) -> Image.Image | None:
    """Restore a photograph of the sample set with the weights of a record, None where these are not the ones here."""
    name = record.method.name
    if name not in dehaze.list_models() or dehazer(name).weights_sha256 != record.method.weights_sha256:
        return None
    with turn:
        return infer(name, image.read(path)).image


# For programs


def remove_haze(photo: dict | None, model: str, strength: float, request: gr.Request) -> tuple[str, str | None, dict]:
    """Remove haze from a photograph.

    Returns the restored photograph (same size, and same format where that is JPEG, PNG, WebP or TIFF), the estimated
    haze density as a grey PNG (0 clear, 255 opaque; null if the model knows none), and seconds, megapixels and
    no-reference scores before and after (lower is better, null if the photograph is too small).

    Args:
        photo: The photograph, up to 60 megapixels and 100 MB: JPEG, PNG, WebP, TIFF, BMP, GIF or AVIF.
        model: The name of the model.
        strength: From 0, which keeps the photograph, to 1, which restores it in full.
    """
    taken, path = read(photo)
    with explained("This photograph cannot be restored", path):
        restoration = restore(model, taken, float(strength), request)
        restored = restoration.save(in_cache(batch.output_name(path.name, taken)))
    density = None
    if restoration.density is not None:
        pixels = (restoration.density * 255).round().astype(np.uint8)
        density = str(saved(Image.fromarray(pixels), f"{path.stem}_haze_density.png"))
    facts = {"model": model, "strength": strength, "seconds": restoration.seconds, "megapixels": megapixels(taken)}
    for when, seen in (("before", taken), ("after", restoration.photo)):
        facts[when] = quality.measure(preview(seen, PREVIEW_SIDE))
    return str(restored), density, facts


# The page

TITLE = "Dehaze"
INTRO = """
<h1>Dehaze</h1>
<p>Drop in a photograph that haze, fog or smog has washed out, and take it home clear.</p>
"""
FOOTER = f"""
<p>Haze hides what is behind it: where it is thick, no software can bring the details back, and some noise may show.
Photographs may have up to {MAX_MEGAPIXELS} megapixels and {MAX_FILE.removesuffix("mb")} MB; each visitor,
{ALLOWED_MEGAPIXELS} megapixels in {ALLOWED_SECONDS // 60} minutes. They are restored on this server, shown to nobody
else, and deleted within two hours. Free software under the Apache License 2.0.</p>
"""
BATCH_HINT = f"""
Several photographs, or a zip archive of them: up to {LIMITS.photos}, each of at most {MAX_MEGAPIXELS} megapixels. What
cannot be read is named and left out; the others go on. When you stop, what is done is kept.
"""
VIDEO_HINT = f"""
An MP4, MOV or WebM clip of at most {video.MAX_SECONDS} seconds, even one that this browser cannot play. The result is a
WebM clip without sound, at most {video.MAX_SIDE} pixels wide or high. What the model estimates follows the picture
slowly, so that nothing flickers.
"""
WAITING = "<p>Scores before and after appear here.</p>"
STOPPED = "<p class='words' role=status>Stopped.</p>"
CSS = """
.gradio-container { width: 100%; min-width: 0; }
.gradio-container > .main { width: 100%; max-width: 1280px !important; }
footer .divider { display: none; }
.html-container { padding: 0 !important; }
#intro h1 { width: fit-content; margin: .5rem 0 0; font-size: 2rem; font-weight: 700; letter-spacing: -.02em;
  background: linear-gradient(90deg, #94a3b8, #0284c7 70%); background-clip: text; color: transparent; }
#intro p { margin: 0; color: var(--body-text-color-subdued); }
#footer p { max-width: 60rem; font-size: .85rem; color: var(--body-text-color-subdued); }
.model label { width: 100%; }
.model label span { white-space: pre-line; font-size: .85rem; color: var(--body-text-color-subdued); }
.model label span::first-line { font-size: var(--text-md); color: var(--body-text-color); }
#credits p, #credits a { margin: 0; padding: 0; font-size: .85rem; color: var(--body-text-color-subdued); }
#slider img.fixed:not(.hidden) { opacity: var(--strength, 1); }
.before-after [data-testid=slider]:focus-visible { outline: 3px solid var(--color-accent); }
.before-after .empty::after { content: "Before and after appear here"; position: absolute; margin-top: 4rem;
  color: var(--body-text-color-subdued); }
#legend { display: flex; gap: .6rem; align-items: center; font-size: .85rem; color: var(--body-text-color-subdued); }
#legend div { flex: 1; height: .6rem; border-radius: .3rem; }
.scores { overflow-x: auto; }
.scores table { width: 100%; border-collapse: collapse; font-variant-numeric: tabular-nums; }
.scores table, .scores tr, .scores th, .scores td { border: 0; }
.scores th, .scores td { padding: .4rem .6rem .4rem 0; border-bottom: 1px solid var(--border-color-primary) !important;
  text-align: left; overflow-wrap: break-word; }
#batch table { table-layout: fixed; }
#batch th { width: 35%; overflow-wrap: anywhere; }
.scores thead th { font-weight: 400; color: var(--body-text-color-subdued); }
.scores small { display: block; font-weight: 400; color: var(--body-text-color-subdued); }
.scores p { margin: .6rem 0 0; font-size: .85rem; color: var(--body-text-color-subdued); }
.scores p.words { margin: 0 0 .4rem; font-size: 1rem; color: var(--body-text-color); }
.scores progress { width: 100%; height: .5rem; appearance: none; border: 0; background: var(--border-color-primary); }
.scores progress::-webkit-progress-bar { background: var(--border-color-primary); }
.scores progress::-webkit-progress-value { background: var(--color-accent); }
.scores progress::-moz-progress-bar { background: var(--color-accent); }
.scores .better { color: #15803d; } .dark .scores .better { color: #4ade80; }
.scores .worse { color: #b45309; } .dark .scores .worse { color: #fbbf24; }
#clip [aria-label^=Trim] { display: none; } /* it would fetch a program from elsewhere */
#frames { min-height: 3.25rem; } /* what comes below does not jump */
@media (min-width: 641px) { #scores { min-height: 26rem; } }
@media (max-width: 640px) {
  .before-after { height: 75vw !important; }
  .before-after img { max-height: 75vw !important; }
  #ranking { font-size: .8rem; }
  #ranking td { white-space: nowrap; padding-right: .35rem; }
}
"""
# A phone shows the result below the button.
SCROLL = "() => { if (innerWidth < 700) document.querySelector('#slider').scrollIntoView({behavior: 'smooth'}) }"
# The restored picture lies over the hazy one: its opacity is the strength, at once and without the server.
STRENGTH = "strength => document.documentElement.style.setProperty('--strength', strength ?? 1)"
# Gradio builds the page piece by piece, and each moves those below it: nothing shows before all has stood still for a
# moment (see SCRIPT), or, should the script fail, for long.
HEAD = """<style>
@keyframes appear { to { visibility: visible; } }
html:not(.built) gradio-app { visibility: hidden; animation: appear 0s 8s forwards; }
</style>"""
# Gradio leaves these pictures without a text, and the divider between before and after to the mouse.
SCRIPT = """() => {
  const dress = slider => {
    slider.querySelectorAll('img').forEach((picture, i) => {
      const text = ['Before: hazy', 'After: haze removed'][i];
      if (picture.alt !== text) picture.alt = text;
    });
    const divider = slider.querySelector('[data-testid=slider]');
    if (!divider || divider.role === 'slider') return;
    const place = () => {
      const box = divider.getBoundingClientRect(), whole = divider.parentElement.getBoundingClientRect();
      divider.ariaValueNow = Math.round(100 * (box.x + box.width / 2 - whole.x) / whole.width);
      return [box.x + box.width / 2, box.y + box.height / 2, whole.width / 20];
    };
    Object.assign(divider, {tabIndex: 0, role: 'slider', ariaLabel: 'Divider between before and after',
      ariaValueMin: 0, ariaValueMax: 100});
    divider.addEventListener('focus', place);
    divider.addEventListener('keydown', event => {
      const sign = {ArrowLeft: -1, ArrowRight: 1}[event.key];
      if (!sign) return;
      event.preventDefault();
      const [x, y, step] = place();
      const drag = [['mousedown', divider, x], ['mousemove', window, x + sign * step], ['mouseup', window, x]];
      const how = {clientY: y, view: window, bubbles: true, cancelable: true};
      for (const [kind, target, clientX] of drag) target.dispatchEvent(new MouseEvent(kind, {clientX, ...how}));
      setTimeout(place, 100);
    });
  };
  const look = () => {
    document.querySelectorAll('.before-after').forEach(dress);
    document.querySelectorAll('#examples img:not([alt]), #examples img[alt=""]').forEach(picture => {
      picture.alt = picture.src.split('/').pop().split('.')[0].replaceAll('-', ' ');
    });
  };
  const show = () => document.documentElement.classList.add('built');
  let still = setTimeout(show, 250);
  const changed = () => {
    look();
    clearTimeout(still);
    still = setTimeout(show, 250);
  };
  new MutationObserver(changed).observe(document.body, {childList: true, subtree: true});
  look();
}"""


def theme() -> gr.themes.Base:
    """Return the colours of the sky, with enough contrast, and the visitor's own fonts."""
    return gr.themes.Default(
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


@lru_cache(1)
def model_choices() -> list[tuple[str, str]]:
    """List the models worth offering, each with its introduction, without loading one."""
    speeds = quality.seconds_per_megapixel()
    # identity returns its input: a floor for tables, of no use to visitors
    return [(introduction(name, speeds.get(name)), name) for name in dehaze.list_models() if name != "identity"]


def introduction(name: str, speed: float | None) -> str:
    """Say, in a line below its name, what a model is, by its card's title or its network's docstring, and takes."""
    file = hub.shipped_folder(name) / hub.CARD_FILE
    card = ModelCard.load(file) if file.is_file() else None
    facts = card.data.to_dict() if card else {}
    title = re.match(r"\s*# .+?: (.+)", card.text) if card else None
    what = title[1] if title else NETWORKS.get(name).__doc__.splitlines()[0].partition(":")[0].rstrip(".")
    trained_on = ", ".join(facts.get("datasets", ()))
    takes = [facts.get("license", "apache-2.0"), f"trained on {trained_on}" if trained_on else "not trained"]
    if speed is not None:
        takes.append(f"{speed:.2f} s a megapixel on a CPU")
    return f"{name}\n{what.replace('`', '')}; {', '.join(takes)}"


def build(results: Path = RESULTS) -> gr.Blocks:
    """Build the page; its leaderboard shows the records in the folder `results`."""
    with gr.Blocks(title=TITLE, analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)) as page:
        gr.HTML(INTRO, elem_id="intro", padding=False)
        with gr.Tabs():  # here tabs are mounted
            with gr.Tab("Dehaze"), gr.Tabs():
                with gr.Tab("Photograph"):
                    photograph_tab()
                with gr.Tab("Batch"):
                    batch_tab()
                with gr.Tab("Video"):
                    video_tab()
            with gr.Tab("Leaderboard"):
                view.leaderboard(results, restore_as)
            with gr.Tab("Submit"):
                submit.form(results, os.environ.get("DEHAZE_RESULTS"), os.environ.get("DEHAZE_DATA"))
        gr.HTML(FOOTER, elem_id="footer", padding=False)
    return page.queue(max_size=QUEUE)


# What events share. All restoring of photographs waits in one line, and what takes minutes in another.
PRIVATE = {"preprocess": False, "api_visibility": "private"}
RESTORING = {"concurrency_id": "restoring", "concurrency_limit": 1}
LASTING = PRIVATE | {"concurrency_id": "lasting", "concurrency_limit": 1}
AT_ONCE = PRIVATE | {"queue": False}
SHOWING = PRIVATE | {"concurrency_id": "showing", "concurrency_limit": 2}


def choose_model(steady: bool = False) -> gr.Radio:
    """Add the choice of a model: with `steady`, only of those that can keep a clip from flickering."""
    choices = model_choices()
    if steady:
        choices = [(line, name) for line, name in choices if hasattr(NETWORKS.get(name), "maps")]
    return gr.Radio(choices, value=choices[0][1], label="Model", elem_classes="model")


def choose_strength() -> gr.Slider:
    return gr.Slider(0, 1, 1, step=0.05, label="Strength", info="0 leaves all haze, 1 removes the most")


def choose_format() -> gr.Radio:
    return gr.Radio(list(FORMATS), value=next(iter(FORMATS)), label="Download as")


def before_and_after(height: int, **options: Any) -> gr.ImageSlider:
    return gr.ImageSlider(
        format="png", type="filepath", interactive=False, height=height, max_height=height, buttons=["fullscreen"],
        elem_classes="before-after", **options,
    )  # fmt: skip


def photograph_tab() -> None:
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
            sources = example_sources()
            examples = gr.Examples(
                [str(SAMPLE / source["file"]) for source in sources], photo, label="Or try one of these",
                elem_id="examples", api_visibility="private",
            )  # fmt: skip
            gr.HTML(credit_list(sources), elem_id="credits", padding=False)
        with gr.Column(scale=3, min_width=320):
            slider = before_and_after(label="Before and after", height=480, elem_id="slider")
            form = choose_format()
            download = gr.DownloadButton("Download", interactive=False, elem_id="download")
            with gr.Row():
                with gr.Column(min_width=280):
                    density = gr.Image(
                        label="Haze density", alt_text="Map of the estimated haze density", format="png", height=260,
                        interactive=False, buttons=["fullscreen"], elem_id="density",
                    )  # fmt: skip
                    gr.HTML(legend(), elem_id="legend-box", padding=False)
                with gr.Column(min_width=280):
                    scores = gr.HTML(WAITING, elem_id="scores", elem_classes="scores", padding=False)
    with gr.Accordion("Compare models on this photograph", open=False, elem_id="compare-models"):
        names = [name for _, name in model_choices()]
        models = gr.CheckboxGroup(names, value=names, label="Models")
        compare_button = gr.Button("Compare")
        table = gr.HTML(elem_classes="scores", elem_id="ranking", padding=False)
        with gr.Row():
            pairs = [before_and_after(label=name, height=360, visible=False, min_width=320) for name in names]

    for start in (button.click, examples.load_input_event.success):
        ran = start(run, [photo, model], [result, slider, density], show_progress_on=slider, **PRIVATE, **RESTORING)
        ran.success(score, [result, strength], scores, **SHOWING)
        ran.success(prepare, [result, strength, form], download, **SHOWING)
        start(None, js=SCROLL)
    strength.change(None, strength, js=STRENGTH)
    strength.change(score, [result, strength], scores, **SHOWING)
    for changed in (strength.change, form.change):
        changed(prepare, [result, strength, form], download, **SHOWING)
    compare_button.click(compare, [photo, models], [table, *pairs], show_progress_on=table, **PRIVATE, **RESTORING)

    # The same for programs, which want other things than the page shows.
    with gr.Row(visible=False):
        file = gr.File(label="photo")
        answers = [gr.File(label="restored"), gr.File(label="haze density"), gr.JSON(label="facts and scores")]
        called = gr.Button()
    called.click(remove_haze, [file, model, strength], answers, api_name="dehaze", preprocess=False, **RESTORING)


def batch_tab() -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            gr.Markdown(BATCH_HINT)
            files = gr.File(
                label="Photographs or zip archives", file_count="multiple", file_types=["image", ".zip"], height=200,
                elem_id="files",
            )  # fmt: skip
            settings = [choose_model(), choose_strength(), choose_format()]
            with gr.Row():
                button = gr.Button("Remove haze from all", variant="primary", size="lg", scale=3)
                stop = gr.Button("Stop", size="lg", min_width=80)
        with gr.Column(scale=3, min_width=320):
            download = gr.DownloadButton("Download all", interactive=False, elem_id="download-all")
            state = gr.HTML(
                "<p>What becomes of each appears here.</p>", elem_classes="scores", elem_id="batch", padding=False
            )
    button.click(stop_batch.withdraw, **AT_ONCE).success(
        restore_batch, [files, *settings], [state, download], show_progress="minimal", show_progress_on=state, **LASTING
    )
    stop.click(stop_batch.ask, **AT_ONCE)


def video_tab() -> None:
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            gr.Markdown(VIDEO_HINT)
            clip = gr.Video(label="Your clip", sources=["upload"], height=300, buttons=[], elem_id="clip")
            settings = [choose_model(steady=True), choose_strength()]
            with gr.Row():
                button = gr.Button("Remove haze from the clip", variant="primary", size="lg", scale=3)
                stop = gr.Button("Stop", size="lg", min_width=80)
        with gr.Column(scale=3, min_width=320):
            state = gr.HTML("<p>Progress appears here.</p>", elem_classes="scores", elem_id="frames", padding=False)
            restored = gr.Video(
                label="Restored", interactive=False, height=480, buttons=["download"], elem_id="restored-clip"
            )
    button.click(stop_video.withdraw, **AT_ONCE).success(
        restore_video, [clip, *settings], [state, restored], show_progress="minimal", show_progress_on=state, **LASTING
    )
    stop.click(stop_video.ask, **AT_ONCE)


def example_sources() -> list[dict[str, str]]:
    """List the real hazy photographs of the sample set: file, title, author, licence, source."""
    with (SAMPLE / "sources.csv").open(newline="", encoding="utf-8") as file:
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


def launch(results: Path = RESULTS, **options: Any) -> gr.Blocks:
    """Build the page and serve it; `options` go to gradio's launch."""
    page = build(results)
    page.launch(
        theme=theme(), css=CSS + view.CSS + submit.CSS, js=SCRIPT, head=HEAD, max_file_size=MAX_FILE,
        state_session_capacity=VISITORS_KEPT, allowed_paths=[], footer_links=["api"], run_history=False, **options,
    )  # fmt: skip
    return page


if __name__ == "__main__":
    keep_freed_memory()
    launch()
