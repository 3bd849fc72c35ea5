"""The tab of many photographs: files and zip archives in, one zip archive out.

Archives come from strangers. Their members are read one by one, each by no more than a photograph may have, and none is
unpacked to disk: neither names that climb out of a folder nor bombs do harm.
"""

import html
import logging
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from itertools import takewhile
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import gradio as gr

from dehaze.dehazer import Restoration
from dehaze.errors import DehazeError, ImageError
from dehaze.io import archive
from dehaze.io.names import claim_path, output_name
from dehaze.io.photo import Photo
from dehaze.page.controls import (
    FORMATS,
    LASTING,
    LOOKS,
    bar,
    choose_format,
    choose_look,
    choose_privacy,
    choose_strength,
    runs,
)
from dehaze.page.folder import full_disk_explained, reserve
from dehaze.page.inference import adjustments, infer
from dehaze.page.messages import chosen, chosen_strength, explained, for_visitors, uploaded
from dehaze.page.models import choose_model, chosen_model
from dehaze.page.visitors import Stop
from dehaze.page.workshop import MAX_FILE_BYTES, MAX_MEGAPIXELS, in_cache, restored

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Limits:
    """What a batch may hold: photographs, bytes of each, bytes of all archives unpacked, megapixels of each."""

    photos: int = 200
    photo_bytes: int = MAX_FILE_BYTES
    unpacked_bytes: int = 2_000_000_000
    megapixels: float = 60.0


@dataclass(frozen=True)
class Source:
    """A photograph to come: its name, the file that it is or lies in, and the member that it is there."""

    name: str
    path: Path
    member: zipfile.ZipInfo | None = None

    def file(self, limits: Limits) -> Path | bytes:
        """Return the file, or the bytes of the member of an archive. Raises ImageError."""
        return self.path if self.member is None else archive.read_member(self.path, self.member, limits.photo_bytes)


@dataclass(frozen=True)
class Outcome:
    """What became of a photograph: `written` is its name in the archive of results, or `error` says why there is none.

    `seconds` is the time in the network; `notes` say what of the file is lost.
    """

    name: str
    written: str | None = None
    error: str | None = None
    megapixels: float = 0.0
    seconds: float = 0.0
    notes: tuple[str, ...] = ()


def find(paths: Iterable[Path], limits: Limits = Limits()) -> list[Source]:
    """List the photographs in files and zip archives: whatever is no archive counts as one.

    Folders and hidden members of archives are passed over. Raises ImageError if an archive cannot be read or if there
    are too many photographs, or too large ones, in all.
    """
    sources: list[Source] = []
    for number, path in enumerate(paths, 1):
        sources += _members(path) if path.suffix.lower() == ".zip" else [Source(path.name, path)]
        # An archive counts as well, and at once: a request can name one thousands of times.
        if (count := max(number, len(sources))) > limits.photos:
            raise ImageError(
                f"These are at least {count} photographs, and the limit is {limits.photos}. Give fewer at once."
            )
    if not sources:
        raise ImageError("There is no photograph in it. Give photographs, or a zip archive of some.")
    unpacked = sum(source.member.file_size for source in sources if source.member)
    if unpacked > limits.unpacked_bytes:
        raise ImageError(
            f"The archives unpack to {unpacked / 1e9:.1f} GB, and the limit is {limits.unpacked_bytes / 1e9:g}. "
            "Give fewer photographs at once."
        )
    return sources


def _members(path: Path) -> list[Source]:
    def name(member: zipfile.ZipInfo) -> str:
        return "".join(filter(str.isprintable, archive.member_path(member).name))[-100:]

    return [Source(name(member), path, member) for member in archive.list_members(path)]


Saved = tuple[Path, Outcome]  # a result on disk, and what became of its photograph


def restore_photos(
    sources: Iterable[Source],
    restorer: Callable[[Callable[[], Path | bytes], Callable[[Photo, Restoration], Saved]], Saved],
    target: Path,
    suffix: str | None = None,
    limits: Limits = Limits(),
    strip_metadata: bool = False,
) -> Iterator[Outcome]:
    """Restore photographs one by one into the zip archive `target`, and give the outcome of each as it is there.

    `restorer` takes a function that returns a file or its bytes, and one that makes of the photograph and its
    restoration what it returns. What fails does not stop the rest, a full disk neither. The archive is whole once the
    iterator is done or closed.
    """
    written: set[str] = set()

    def restored(source: Source) -> Saved:
        """Restore one to a file; nothing of its size stays in memory."""

        def save(photo: Photo, restoration: Restoration) -> Saved:
            name = claim_path(Path(output_name(source.name, photo, suffix)), written)
            # On disk by another name, since a name in an archive may be longer than those of a disk.
            file = restoration.save(folder / f"result{name.suffix}", strip_metadata=strip_metadata)
            notes = (*photo.notes, *(() if strip_metadata else photo.losses(file)))
            size = photo.pixels[..., 0].size / 1e6
            return file, Outcome(source.name, str(name), None, size, restoration.seconds, notes)

        return restorer(partial(source.file, limits), save)

    with _Archive(target) as results, TemporaryDirectory(dir=target.parent) as unpacked:
        folder = Path(unpacked)
        for source in sources:
            try:
                with full_disk_explained():
                    file, outcome = restored(source)
                    results.add(file, str(outcome.written))
            except (DehazeError, ValueError) as error:
                yield Outcome(source.name, error=for_visitors(error, source.name))
            except MemoryError:
                yield Outcome(source.name, error="There is not enough memory for it. Make it smaller.")
            except Exception:
                logger.exception("A photograph of a batch failed")
                yield Outcome(source.name, error="It cannot be restored. The other photographs go on.")
            else:
                yield outcome


class _Archive:
    """A zip archive that grows by whole files: room on disk is taken before anything is written."""

    _DIRECTORY = 2_000  # bytes that the list of members grows by with each, and the end of the archive

    def __init__(self, path: Path):
        self._file = path.open("wb+")
        self._zip = zipfile.ZipFile(self._file, "w")  # stored: photographs are packed already
        self._members = 0

    def __enter__(self) -> "_Archive":
        return self

    def add(self, file: Path, name: str) -> None:
        """Move a file into the archive. Raises OSError if the disk is full; the archive is as before, then."""
        try:
            size = file.stat().st_size + (self._members + 2) * self._DIRECTORY
            reserve(self._file, size, self._zip.start_dir)
            self._zip.write(file, name)
            self._members += 1
        finally:
            file.unlink()

    def __exit__(self, *_: object) -> None:
        self._zip.close()
        self._file.truncate()  # what was reserved and not needed
        self._file.close()


# The tab

LIMITS = Limits(megapixels=MAX_MEGAPIXELS)
HINT = f"""
Several photographs, or a zip archive of them: up to {LIMITS.photos}, each of at most {MAX_MEGAPIXELS} megapixels. What
cannot be read is named and left out; the others go on. When you stop, what is done is kept.
"""

stop_batch = Stop()


def restore_batch(
    uploads: Any,
    model: Any,
    look: Any,
    strength: Any,
    form: Any,
    request: gr.Request | None,
    strip_metadata: Any = False,
) -> Iterator:
    """Restore many photographs; give the status of each, and at last all results, or those so far, in one archive."""
    uploads = uploads if isinstance(uploads, list) else [uploads]
    paths = [uploaded(upload, "photograph") for upload in uploads or [None]]
    model, strength, form = chosen_model(model), chosen_strength(strength), chosen(form, FORMATS, "format")
    settings = {"strength": strength, "adjustments": adjustments(model, chosen(look, LOOKS.values(), "look"))}
    with explained("These photographs cannot be taken"):
        sources = find(paths, LIMITS)
        target, outcomes = in_cache("dehazed.zip"), []
        yield status(sources, outcomes), gr.DownloadButton("Download all", interactive=False)
        results = restore_photos(
            takewhile(lambda _: not stop_batch.asked(request), sources),
            lambda given, finish: restored(
                model, given, request, lambda photo: finish(photo, infer(model, photo, **settings))
            ),
            target, FORMATS[form], LIMITS, strip_metadata is True,
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


def status(sources: list[Source], outcomes: list[Outcome], stopped: bool = False) -> str:
    """Render how far a batch has come, and what became of each photograph."""
    rows = []
    for i, source in enumerate(sources):
        if i >= len(outcomes):
            kind, text = "", "not restored" if stopped else "at work …" if i == len(outcomes) else "waiting"
        elif error := outcomes[i].error:
            kind, text = "worse", html.escape(error, quote=False)
        else:
            done = f"{outcomes[i].megapixels:.1f} megapixels in {outcomes[i].seconds:.1f} s"
            kind, text = "better", html.escape(". ".join([done, *outcomes[i].notes]), quote=False)
        rows.append(f"<tr><th scope=row>{html.escape(source.name)}</th><td class='{kind}'>{text}</td></tr>")
    failed = sum(outcome.error is not None for outcome in outcomes)
    words = f"{'Stopped: ' * stopped}{len(outcomes)} of {len(sources)} done" + (f", {failed} failed" if failed else "")
    running = not stopped and len(outcomes) < len(sources)
    return f"{bar(len(outcomes), len(sources), words, running)}<table><tbody>{''.join(rows)}</tbody></table>"


def tab() -> None:
    """Add the tab to the Blocks that are being built."""
    with gr.Tab("Batch"):
        with gr.Row():
            with gr.Column(scale=2, min_width=320):
                gr.Markdown(HINT)
                files = gr.File(
                    label="Photographs or zip archives", file_count="multiple", file_types=["image", ".zip"],
                    height=200, elem_id="files",
                )  # fmt: skip
                settings = [choose_model(), choose_look(), choose_strength(), choose_format(), choose_privacy()]
                with gr.Row():
                    button = gr.Button("Remove haze from all", variant="primary", size="lg", scale=3)
                    stop = gr.Button("Stop", size="lg", min_width=80)
            with gr.Column(scale=3, min_width=320):
                download = gr.DownloadButton("Download all", interactive=False, elem_id="download-all")
                state = gr.HTML(
                    "<p>What becomes of each appears here.</p>", elem_classes="scores", elem_id="batch", padding=False
                )
        run, shown = runs(button, stop, stop_batch, state), [state, download]
        run(restore_batch, [files, *settings], shown, show_progress="minimal", show_progress_on=state, **LASTING)
