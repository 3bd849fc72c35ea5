"""Restore many photographs: plan where the results go, and decode and encode while the network works."""

import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple, TypeVar

from dehaze.dehazer import Dehazer
from dehaze.io import names
from dehaze.io.photo import Photo, read_photo

Value = TypeVar("Value")


@dataclass(frozen=True)
class Plan:
    """The photographs to restore and the paths of their results; what was found besides, and is skipped."""

    photos: list[Path]
    targets: dict[Path, Path]
    fallbacks: dict[Path, Path]  # for results that the format of their target cannot hold
    results: list[Path] = field(default_factory=list)  # of earlier runs, found among the photographs
    others: list[Path] = field(default_factory=list)  # files that are no photographs
    done: list[Path] = field(default_factory=list)  # photographs whose result exists

    @property
    def folders(self) -> set[Path]:
        """Return the folders that results are written to."""
        return {self.targets[photo].parent for photo in self.photos}

    def target(self, file: Path, photo: Photo) -> Path:
        """Return the path for the result of `file`, which holds `photo`."""
        target = self.targets[file]
        return target if file not in self.fallbacks or names.holds(target, photo) else self.fallbacks[file]


def plan(patterns: Sequence[str], output: str | None = None, skip_existing: bool = False) -> Plan:
    """Find the photographs that patterns name, and choose paths for their results, all different.

    With `skip_existing`, photographs whose result exists, and is not older, are left out. Raises DehazeError.
    """
    found = names.find_photos(patterns, output)
    targets = names.choose_targets(found.photos, output)
    fallbacks = {} if output is not None and names.names_file(output) else names.choose_fallbacks(targets)

    def is_done(photo: Path) -> bool:
        return any(exists_since(photo, result) for result in (targets[photo], fallbacks.get(photo)) if result)

    done = {photo: None for photo in found.photos if skip_existing and is_done(photo)}
    waiting = [photo for photo in found.photos if photo not in done]
    return Plan(waiting, targets, fallbacks, found.results, found.others, list(done))


def exists_since(photo: Path, result: Path) -> bool:
    with suppress(OSError, ValueError):
        return result.is_file() and result.stat().st_mtime >= photo.stat().st_mtime
    return False


class Seconds(NamedTuple):
    """How long the stages of a photograph took."""

    decode: float = 0.0
    network: float = 0.0
    encode: float = 0.0


@dataclass(frozen=True)
class Outcome:
    """What became of a photograph: the result is in `written`, or `error` says why there is none."""

    file: Path
    written: Path | None = None
    size: tuple[int, int] = (0, 0)  # width and height in px
    error: Exception | None = None
    seconds: Seconds = field(default_factory=Seconds)
    notes: tuple[str, ...] = ()  # what of the file is lost


def restore_photos(
    dehazer: Dehazer,
    files: Sequence[Path],
    plan: Plan,
    strength: float = 1.0,
    max_megapixels: float = 60.0,
    strip_metadata: bool = False,
) -> Iterator[Outcome]:
    """Restore photographs, and give the outcome of each, in their order. No exception of one ends the others.

    While the network restores one, a thread decodes the next and another encodes the last. No more than one photograph
    waits on each side, so memory is bounded.
    """

    def read(file: Path) -> tuple[Photo, float]:
        return _timed(lambda: read_photo(file, max_megapixels=max_megapixels))

    def work(file: Path, coming: "Future[tuple[Photo, float]]") -> Callable[[], Outcome]:
        """Restore one photograph; return what writes it."""
        try:
            given, decode = coming.result()
            restoration, network = _timed(lambda: dehazer(given, strength))
            photo, target = restoration.photo, plan.target(file, given)
        except Exception as failure:  # of one photograph, whatever it is
            error = failure.with_traceback(None)  # whose frames hold the photograph
            return lambda: Outcome(file, error=error)

        def write() -> Outcome:
            try:
                written, encode = _timed(lambda: restoration.save(target, strip_metadata=strip_metadata))
                notes = (*photo.notes, *(() if strip_metadata else photo.losses(written)))
            except Exception as error:
                return Outcome(file, error=error)
            height, width = restoration.pixels.shape[:2]
            return Outcome(file, written, (width, height), None, Seconds(decode, network, encode), notes)

        return write

    with ThreadPoolExecutor(1, "decode") as decoder, ThreadPoolExecutor(1, "encode") as encoder:
        coming = decoder.submit(read, files[0]) if files else None
        writing: Future[Outcome] | None = None
        for number, file in enumerate(files, 1):
            assert coming is not None  # there is one for each file
            current, coming = coming, None
            current.exception()  # wait, so that one photograph is decoded at a time
            coming = decoder.submit(read, files[number]) if number < len(files) else None
            write = work(file, current)
            del current
            if writing is not None:
                yield writing.result()
            writing = encoder.submit(write)
            del write
        if writing is not None:
            yield writing.result()


def _timed(function: Callable[[], Value]) -> tuple[Value, float]:
    began = time.perf_counter()
    return function(), time.perf_counter() - began
