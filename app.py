"""The page: drop in a hazy photograph, compare before and after, take the clear one home; and the leaderboard."""

import csv
import html
import logging
import os
import re
import signal
import socket
import sys
import time
from collections.abc import Callable, Collection, Iterator, MutableMapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import cached_property, lru_cache
from itertools import takewhile
from pathlib import Path
from threading import Lock, Thread
from typing import Any, NoReturn
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
from starlette.middleware import Middleware

import dehaze
from bench.record import RESULTS, Record
from dehaze import hub
from dehaze.density import HazeDensity, load_density
from dehaze.errors import DehazeError
from dehaze.io.clip import MAX_SECONDS, MAX_SIDE, Clip, probe_clip
from dehaze.io.names import output_name
from dehaze.io.photo import Photo, photo_size, read_photo
from dehaze.memory import keep_freed_memory
from dehaze.networks import NETWORKS
from dehaze.page import batch
from dehaze.page.door import Door
from dehaze.page.folder import PageFolder, full_disk_explained
from dehaze.page.kept import Kept, Shelf
from dehaze.page.preview import colour_table, density_map, preview
from dehaze.page.visitors import Allowance, Stop, Turns, address
from dehaze.steady import restore_clip
from leaderboard import quality, submit, view

MAX_MEGAPIXELS = 60
MIN_SIDE = 16
MAX_FILE = "100mb"
# What the memory holds: these many models, a small CLIP, one photograph at work, some 4 MB for each visitor whose last
# result is kept; its pixels are on disk.
MODELS_KEPT = 3
VISITORS_KEPT = 100
KEPT_BYTES = 8_000_000_000  # of results on disk; then the oldest make room
KEPT_SECONDS, SWEEP_SECONDS = 3600, 600
QUEUE = 100  # requests that may wait; the next one is told to come back
# What one visitor may have restored and may upload in this time. Seconds of work are estimated.
ALLOWED_SECONDS = 600
ALLOWED = {"photographs": 300, "megapixels": 1500, "seconds of work": 400}
ALLOWED_UPLOADS = {"megabytes": 4000}
SECONDS_PER_MEGAPIXEL = 0.2  # of decoding, applying what the network found on a reduced copy, and encoding
# Proxies in front of the page that append to X-Forwarded-For; a Space has one.
PROXIES = int(os.environ.get("DEHAZE_PROXIES", bool(get_space())))
PREVIEW_SIDE = 1600  # what the browser is shown; the download has every pixel
SAMPLE = Path(__file__).resolve().parent / "bench" / "sample"
EXAMPLES = sorted((SAMPLE / "real").glob("*.jpg"))
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
    folder: Path = field(default_factory=lambda: in_cache(""))  # of its download: the last replaces the one before

    @cached_property
    def scores_before(self) -> quality.Scores:
        return measured(self.before) | {quality.DENSITY: self.density}


allowance = Allowance(ALLOWED, ALLOWED_SECONDS)
turns = Turns()  # one photograph at work at a time, however many wait
scoring = Lock()  # small copies are scored beside it, one at a time
shelf = Shelf(KEPT_BYTES)
logger = logging.getLogger(__name__)


def visitor(request: gr.Request | None) -> str:
    """Tell visitors apart by their address."""
    return address(request.request.scope, PROXIES) if request else ""


# A photograph in


@lru_cache(MODELS_KEPT)
def dehazer(model: str) -> dehaze.Dehazer:
    return dehaze.load(model, fast=True)  # a large photograph shall not keep the others waiting for minutes


@lru_cache(1)
def haze_teller() -> HazeDensity | None:
    """Load the CLIP model that estimates the haze of any picture; None where none ships, or it is damaged."""
    return optional(load_density) if hub.shipped("clip") else None


def optional(function: Callable, *arguments: Any) -> Any:
    """Return what a function gives, None where it fails: a finished restoration is never lost for what comes beside."""
    try:
        return function(*arguments)
    except Exception:
        logger.exception("%s failed", function.__name__)
        return None


@GPU
def infer(model: str, photo: Photo, strength: float = 1.0) -> dehaze.Restoration:
    return dehazer(model)(photo, strength)


@GPU
def infer_clip(model: str, clip: Clip, target: Path, strength: float, visitor: str) -> Iterator[int]:
    yield from restore_clip(clip, target, dehazer(model), strength, turn=lambda: turns(visitor))


def restored(
    model: str,
    given: Callable[[], Path | bytes],
    strength: float,
    request: gr.Request | None,
    finish: Callable[[Photo, dehaze.Restoration], Any],
) -> Any:
    """Restore a file, or its bytes, when the visitor's turn comes; return what `finish` makes of the photograph and it.

    The turn ends when nothing of the photograph's size is left, so that the memory holds one at a time. Raises
    DehazeError if the visitor has had enough, or the file is no photograph that the page takes.
    """
    who = visitor(request)

    def work() -> Any:
        source = given()
        width, height = photo_size(source)
        if min(height, width) < MIN_SIDE:
            name = source if isinstance(source, Path) else "The data"
            raise DehazeError(f"{name} has {width}×{height} pixels. Give one with {MIN_SIDE} or more on each side.")
        taken = width * height / 1e6
        if taken <= MAX_MEGAPIXELS:  # else it is refused next
            allowance.take(who, {"photographs": 1, "megapixels": taken, "seconds of work": seconds(model, taken)})
        photo = read_photo(source, max_megapixels=MAX_MEGAPIXELS)
        return finish(photo, infer(model, photo, strength))

    with turns(who):
        return work()


def seconds(model: str, megapixels: float) -> float:
    """Estimate the seconds that a photograph takes: a network sees a megapixel of it at most."""
    return speeds().get(model, 5) * min(1, megapixels) + SECONDS_PER_MEGAPIXEL * megapixels


@lru_cache(1)
def speeds() -> dict[str, float]:
    return quality.seconds_per_megapixel()


@contextmanager
def explained(title: str, path: Path) -> Iterator[None]:
    """Turn the errors that say what to do into messages on the page, without the server's folders in them."""
    try:
        with full_disk_explained():
            yield
    except (DehazeError, ValueError) as error:
        message = for_visitors(str(error).replace(str(path), path.name))
        raise refusal(f"{title}. {html.escape(message, quote=False)}") from None


def refusal(message: str) -> gr.Error:
    """Return a message for the visitor; gradio shows no titles."""
    return gr.Error(message, 30, print_exception=False)


def for_visitors(message: str) -> str:
    """Leave out of an error what only those who run the page can do."""
    for advice, instead in NOT_FOR_VISITORS:
        message = message.replace(advice, instead)
    return message


def uploaded(upload: Any, what: str) -> Path:
    """Return the path of what was uploaded. Raises gr.Error if that is nothing.

    That it is one of the page's own files is looked at by the door.
    """
    if not upload:
        raise refusal(f"There is no {what} yet. Add one first.")
    if not (isinstance(upload, dict) and isinstance(path := upload.get("path"), str)):
        raise refusal(f"This {what} was not uploaded as a file.")
    return Path(path)


def chosen(value: Any, offered: Collection[Any], what: str) -> Any:
    """Return a choice. Raises gr.Error if it is none of what the page offers: not every event's inputs are checked."""
    if isinstance(value, str) and value in offered:
        return value
    raise refusal(f"The {what} is one of {', '.join(map(str, offered))}; this is none of them.")


def chosen_model(value: Any, steady: bool = False) -> str:
    return chosen(value, [name for _, name in model_choices(steady)], "model")


def chosen_strength(value: Any) -> float:
    """Return a strength. Raises gr.Error if it is no number between 0 and 1."""
    if isinstance(value, int | float) and 0 <= value <= 1:
        return float(value)
    raise refusal("The strength is a number between 0, which keeps the photograph, and 1, which restores it in full.")


def megapixels(photo: Photo) -> float:
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


def run(upload: Any, model: Any, request: gr.Request | None) -> tuple[Result, tuple[Path, Path], Path | None]:
    """Restore a photograph in full; return what the session keeps, the pair to compare, and the haze density."""
    path, model = uploaded(upload, "photograph"), chosen_model(model)
    with explained("This photograph cannot be restored", path):
        found = restore_for_screen(path, model, request)
        pair = saved(found.before, f"{path.stem}_before.png"), saved(found.after, f"{path.stem}_after.png")
        density = optional(haze_density, found.before, model) if haze_teller() else found.density
        result = Result(
            name=path.name,
            model=model,
            summary=f"{found.megapixels:.1f} megapixels restored by {html.escape(model)} in {found.seconds:.1f} s.",
            kept=found.kept,
            before=quality.reduced(found.before),
            after=quality.reduced(found.after),
            density=mean(density),
        )
    map_ = optional(saved_density, density, found.before, f"{path.stem}_haze_density.png")
    return result, pair, map_


@dataclass(frozen=True)
class Shown:
    """What the page shows of a restoration: small copies."""

    before: Image.Image
    after: Image.Image
    density: np.ndarray | None
    kept: Kept
    megapixels: float
    seconds: float


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
        )

    return restored(model, lambda: path, 1.0, request, shown)


def reduced_density(density: np.ndarray | None) -> np.ndarray | None:
    """Return a haze density [H,W] with a long side of at most the size that is shown."""
    if density is None:
        return None
    small = Image.fromarray(density)
    small.thumbnail((quality.SIDE, quality.SIDE), Image.Resampling.BOX)
    return np.asarray(small)


def saved_density(density: np.ndarray | None, picture: Image.Image, name: str) -> Path | None:
    return None if density is None else saved(density_map(density, picture, quality.SIDE), name)


def score(result: Result | None, strength: Any) -> str:
    """Score a result at a strength."""
    if result is None or strength is None:  # the number was deleted, and another is being typed
        return gr.skip()
    after = Image.blend(result.before, result.after, chosen_strength(strength))
    left = None if result.density is None else mean(optional(haze_density, after, result.model))
    scores = measured(after) | {quality.DENSITY: left}
    words = ""
    if left is not None:
        old, new = quality.in_words(result.density), quality.in_words(left)
        words = f"<p class='words'>{old.capitalize()} before, {new} after.</p>"
    return f"{words}{quality.comparison(result.scores_before, scores)}<p>{result.summary}</p>{note()}"


def haze_density(picture: Image.Image, model: str) -> np.ndarray | None:
    """Estimate the haze density [H,W] of a small copy: by CLIP where one ships, else by the model, if it can."""
    photo = read_photo(quality.reduced(picture))
    with scoring:
        if teller := haze_teller():
            return teller.map(photo.tensor())[0, 0].numpy()
        return infer(model, photo).density


def measured(picture: Image.Image) -> quality.Scores:
    """Score a picture, one at a time; without scores where that fails."""
    with scoring:
        return optional(quality.measure, picture) or dict.fromkeys(quality.METRICS)


def mean(density: np.ndarray | None) -> float | None:
    return None if density is None else float(density.mean())


def note() -> str:
    told = "told by a CLIP model, whichever model restored" if haze_teller() else "the model's own estimate"
    return quality.note(told)


def prepare(
    result: Result | None, strength: Any, form: Any, request: gr.Request | None = None
) -> Iterator[gr.DownloadButton]:
    """Write a result at a strength as the file to take home; it replaces the one before."""
    if result is None or strength is None:
        return
    strength, form = chosen_strength(strength), chosen(form, FORMATS, "format")
    yield gr.DownloadButton("Preparing the download …", interactive=False)
    with explained("This photograph cannot be saved", result.folder):
        result.folder.mkdir(exist_ok=True)
        for former in result.folder.iterdir():
            former.unlink()
        with turns(visitor(request)):
            path, (height, width) = write(result, strength, form)
    yield gr.DownloadButton(f"Download {path.suffix[1:].upper()}, {width}×{height}", path, interactive=True)


def write(result: Result, strength: float, form: str) -> tuple[Path, tuple[int, int]]:
    """Write a result at a strength; return the file, and the photograph's height and width."""
    photo = result.kept.at(strength)
    path = result.folder / output_name(result.name, photo, FORMATS[form])
    return photo.save(path), photo.pixels.shape[:2]


def compare(upload: Any, models: Any, request: gr.Request | None) -> Iterator[list]:
    """Restore one photograph by several models; give the table, and a pair to compare for each model on offer."""
    path, offered = uploaded(upload, "photograph"), [name for _, name in model_choices()]
    if not models or not isinstance(models, list):
        raise refusal("There is no model yet. Choose one or more.")
    models = list(dict.fromkeys(map(chosen_model, models)))
    pairs: dict[str, Any] = {name: gr.ImageSlider(None, visible=False) for name in offered}
    rows: list[quality.Row] = []
    for name in models:
        yield [f"<p class='words'>{html.escape(name)} is at work …</p>{quality.ranking(rows)}", *pairs.values()]
        with explained("This photograph cannot be restored", path):
            found = restore_for_screen(path, name, request)
            if not rows:
                common = mean(optional(haze_density, found.before, name)) if haze_teller() else None
                rows.append(quality.Row("photograph", measured(found.before)))
                before_file = saved(found.before, f"{path.stem}_before.png")
            density = mean(found.density) if common is None else common  # else each model has its own estimate
            left = None if density is None else mean(optional(haze_density, found.after, name))
            scores = measured(found.after) | {quality.DENSITY: left}
            rows.append(quality.Row(name, scores, density, found.seconds))
            pair = before_file, saved(found.after, f"{path.stem}_{name}.png")
        pairs = dict.fromkeys(offered, gr.skip()) | {name: gr.ImageSlider(pair, visible=True)}
    yield [f"{quality.ranking(rows)}{note()}", *pairs.values()]


stop_batch, stop_video = Stop(), Stop()


def restore_batch(uploads: Any, model: Any, strength: Any, form: Any, request: gr.Request | None) -> Iterator:
    """Restore many photographs; give the status of each, and at last all results, or those so far, in one archive."""
    uploads = uploads if isinstance(uploads, list) else [uploads]
    paths = [uploaded(upload, "photograph") for upload in uploads or [None]]
    model, strength, form = chosen_model(model), chosen_strength(strength), chosen(form, FORMATS, "format")
    with explained("These photographs cannot be taken", paths[0].parent):
        sources = batch.find(paths, LIMITS)
        target, outcomes = in_cache("dehazed.zip"), []
        yield status(sources, outcomes), gr.DownloadButton("Download all", interactive=False)
        results = batch.restore(
            takewhile(lambda _: not stop_batch.asked(request), sources),
            lambda given, finish: restored(model, given, strength, request, finish), target, FORMATS[form], LIMITS,
        )  # fmt: skip
        try:
            for outcome in results:
                outcomes.append(outcome)
                yield status(sources, outcomes), gr.skip()
        finally:
            stop_batch.end(request)
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


def restore_video(upload: Any, model: Any, strength: Any, request: gr.Request | None) -> Iterator[tuple]:
    """Restore a clip; give how far it has come, and at last the clip."""
    path = uploaded(upload, "clip")
    model, strength = chosen_model(model, steady=True), chosen_strength(strength)
    target, done, began, who = in_cache(f"{path.stem}_dehazed.webm"), 0, time.perf_counter(), visitor(request)
    try:
        with explained("This clip cannot be restored", path):
            clip = probe_clip(path)
            frame = clip.width * clip.height * min(1, MAX_SIDE / max(clip.width, clip.height)) ** 2 / 1e6
            # Maps are predicted on half a megapixel.
            work = clip.count * seconds(model, frame / 2)
            allowance.take(who, {"photographs": 1, "megapixels": clip.count * frame, "seconds of work": work})
            with closing(infer_clip(model, clip, target, strength, who)) as frames:
                for done in frames:
                    if stop_video.asked(request):
                        yield STOPPED, gr.skip()
                        return
                    spent = time.perf_counter() - began
                    words = f"{done} of about {clip.count} frames, {spent:.0f} s"
                    yield bar(done, max(done, clip.count), words), gr.skip()
    finally:
        stop_video.end(request)
    cut = f" The clip is cut short: its header promises {clip.count} frames." if clip.truncated else ""
    yield bar(done, done, f"{done} frames restored in {time.perf_counter() - began:.0f} s.{cut}"), target


def restore_as(record: Record, path: Path) -> Image.Image | None:
    """Restore a photograph of the sample set with the weights of a record, None where these are not the ones here."""
    name = record.method.name
    if name not in dehaze.list_models() or dehazer(name).weights_sha256 != record.method.weights_sha256:
        return None
    with turns("the leaderboard"):
        return infer(name, read_photo(path)).image


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
    path, model, strength = uploaded(photo, "photograph"), chosen_model(model), chosen_strength(strength)
    with explained("This photograph cannot be restored", path):
        file, density, facts, pair = restore_for_program(path, model, strength, request)
    scores = {when: measured(picture) for when, picture in zip(("before", "after"), pair, strict=True)}
    return str(file), density and str(density), facts | scores


def restore_for_program(
    path: Path, model: str, strength: float, request: gr.Request | None
) -> tuple[Path, Path | None, dict[str, Any], tuple[Image.Image, Image.Image]]:
    """Restore a photograph to a file; return it, the haze density, facts, and copies before and after to be scored."""

    def written(photo: Photo, restoration: dehaze.Restoration) -> tuple:
        file = restoration.save(in_cache(output_name(path.name, photo)))
        density = None
        if restoration.density is not None:
            pixels = (restoration.density * 255).round().astype(np.uint8)
            density = saved(Image.fromarray(pixels), f"{path.stem}_haze_density.png")
        facts = {"model": model, "strength": strength, "seconds": restoration.seconds, "megapixels": megapixels(photo)}
        return file, density, facts, (preview(photo, PREVIEW_SIDE), preview(restoration.photo, PREVIEW_SIDE))

    return restored(model, lambda: path, strength, request, written)


# The page

TITLE = "Dehaze"
INTRO = """
<h1>Dehaze</h1>
<p>Drop in a photograph that haze, fog or smog has washed out, and take it home clear.</p>
"""
FOOTER = f"""
<p>Haze hides what is behind it: where it is thick, no software can bring the details back, and some noise may show.
A photograph may have up to {MAX_MEGAPIXELS} megapixels and {MAX_FILE.removesuffix("mb")} MB. Each visitor may have
{ALLOWED["photographs"]} photographs or {ALLOWED["megapixels"]} megapixels restored in {ALLOWED_SECONDS // 60} minutes.
Photographs are restored on this server, shown to nobody else, and deleted within two hours. Free software under the
Apache License 2.0.</p>
"""
BATCH_HINT = f"""
Several photographs, or a zip archive of them: up to {LIMITS.photos}, each of at most {MAX_MEGAPIXELS} megapixels. What
cannot be read is named and left out; the others go on. When you stop, what is done is kept.
"""
VIDEO_HINT = f"""
An MP4, MOV or WebM clip of at most {MAX_SECONDS} seconds, even one that this browser cannot play. The result is a
WebM clip without sound, at most {MAX_SIDE} pixels wide or high. What the model estimates follows the picture
slowly, so that nothing flickers.
"""
WAITING = "<p>Scores before and after appear here.</p>"
STOPPED = "<p class='words' role=status>Stopped.</p>"
STOPPING = "<p class='words' role=status>Stopping …</p>"
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
#clip.unplayable video, #clip.unplayable .controls { display: none; }
#clip.unplayable .video-container::after { position: absolute; inset: 0; display: grid; place-items: center;
  padding: 2rem; text-align: center; color: var(--body-text-color-subdued);
  content: "This browser cannot play the clip. It can be restored all the same."; }
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
  for (const kind of ['error', 'loadeddata'])
    document.addEventListener(kind, event => {
      if (!event.target.matches?.('#clip video')) return;
      document.querySelector('#clip').classList.toggle('unplayable', kind === 'error');
      if (kind === 'error') event.stopPropagation(); // the hint above says more than the alarm that would follow
    }, true);
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


@lru_cache(2)
def model_choices(steady: bool = False) -> list[tuple[str, str]]:
    """List the models worth offering, each with its introduction, without loading one.

    With `steady`, only those that can keep a clip from flickering.
    """
    names = [name for name in dehaze.list_models() if not steady or hasattr(NETWORKS.get(name), "maps")]
    # identity returns its input: a floor for tables, of no use to visitors
    return [(introduction(name, speeds().get(name)), name) for name in names if name != "identity"]


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
    gr.set_static_paths(EXAMPLES)
    with gr.Blocks(title=TITLE, analytics_enabled=False) as page:
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
    return page.queue(max_size=QUEUE, api_open=False)


# What events share. What restores takes turns, so as many may begin as there are threads for.
PRIVATE = {"preprocess": False, "api_visibility": "private"}
RESTORING = {"concurrency_id": "restoring", "concurrency_limit": 20}
LASTING = PRIVATE | {"concurrency_id": "lasting", "concurrency_limit": 8}
AT_ONCE = PRIVATE | {"queue": False}
SHOWING = PRIVATE | {"concurrency_id": "showing", "concurrency_limit": 8}
THREADS = 60


def choose_model(steady: bool = False) -> gr.Radio:
    choices = model_choices(steady)
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
        ran.success(score, [result, strength], scores, **AT_ONCE)
        ran.success(prepare, [result, strength, form], download, **SHOWING)
        start(None, js=SCROLL)
    strength.change(None, strength, js=STRENGTH)
    strength.change(score, [result, strength], scores, **AT_ONCE)
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
    begin, end = start_and_stop(stop_batch)
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
    button.click(begin, **AT_ONCE).success(
        restore_batch, [files, *settings], [state, download], show_progress="minimal", show_progress_on=state, **LASTING
    )
    stop.click(end, None, state, **AT_ONCE)


def video_tab() -> None:
    begin, end = start_and_stop(stop_video)
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
    button.click(begin, **AT_ONCE).success(
        restore_video, [clip, *settings], [state, restored], show_progress="minimal", show_progress_on=state, **LASTING
    )
    stop.click(end, None, state, **AT_ONCE)


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


def launch(results: Path = RESULTS, folder: PageFolder | None = None, **options: Any) -> gr.Blocks:
    """Build the page and serve it, behind its door; `options` go to gradio's launch."""
    folder = folder or PageFolder()
    folder.open()
    folder.keep_swept(KEPT_SECONDS, SWEEP_SECONDS)
    page = build(results)
    door = Middleware(
        Door, folder=folder, static=EXAMPLES, waiting=lambda: under_way(page), proxies=PROXIES,
        uploads=Allowance(ALLOWED_UPLOADS, ALLOWED_SECONDS),
    )  # fmt: skip
    Thread(target=optional, args=(warm_up,), name="warm-up", daemon=True).start()
    page.launch(
        theme=theme(), css=CSS + view.CSS + submit.CSS, js=SCRIPT, head=HEAD, max_file_size=MAX_FILE,
        state_session_capacity=VISITORS_KEPT, max_threads=THREADS, allowed_paths=[], footer_links=["api"],
        run_history=False, enable_monitoring=False, ssr_mode=False,
        app_kwargs={"middleware": [door], "lifespan": lambda _: folder.until_closed()}, **options,
    )  # fmt: skip
    return page


def under_way(page: gr.Blocks) -> Iterator[MutableMapping[str, Any]]:
    """List the requests (as ASGI scopes) of the events in the queue and at work."""
    queue = page._queue
    for events in (*(waiting.queue for waiting in queue.event_queue_per_concurrency_id.values()), *queue.active_jobs):
        yield from (event.request.scope for event in events or ())


def warm_up() -> None:
    """Load what the first photograph needs."""
    model, picture = model_choices()[0][1], Image.open(EXAMPLES[0]).convert("RGB")
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


def end(folder: PageFolder) -> NoReturn:
    """Empty the temporary folder and end the process at once: threads that compute would make it abort."""
    folder.close()
    os._exit(0)


if __name__ == "__main__":
    port, folder = free_port(), PageFolder()
    signal.signal(signal.SIGTERM, lambda *_: end(folder))
    keep_freed_memory()
    launch(folder=folder, server_port=port)
