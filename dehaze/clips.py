"""Restore the clips that a command line names."""

import glob
import math
import os
import time
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from rich.progress import Progress

from dehaze.batch import exists_since
from dehaze.dehazer import Dehazer
from dehaze.errors import OutputError
from dehaze.io import names
from dehaze.terminal import as_markup, complaints, console

_SUFFIXES = {
    *(".mp4", ".m4v", ".mov", ".qt", ".webm", ".mkv", ".3gp", ".3g2"),
    *(".avi", ".ts", ".mts", ".m2ts", ".mpg", ".wmv"),
}
_WRITABLE = {".mp4", ".m4v"}


class Split(NamedTuple):
    """The clips to restore, the results of earlier runs, which are skipped, and the patterns that name no clips."""

    clips: list[Path]
    results: list[Path]
    others: list[str]


def split_clips(patterns: Iterable[str]) -> Split:
    """Find the clips that patterns name. A folder is searched for photographs only.

    Glob patterns give no results of earlier runs whose originals lie beside them; a clip counts by its name.
    """
    clips: dict[Path, None] = {}
    results: dict[Path, None] = {}
    others: list[str] = []
    for pattern in patterns:
        if os.path.isdir(pattern) or Path(pattern).suffix.lower() not in _SUFFIXES:
            others.append(pattern)
            continue
        matches = [pattern] if os.path.exists(pattern) else sorted(glob.glob(pattern, recursive=True))
        kept = [match for match in matches if match == pattern or not _is_result(Path(match))] or matches
        clips |= dict.fromkeys(map(Path, kept or [pattern]))  # a clip that does not exist fails by its name
        results |= dict.fromkeys(map(Path, matches))
    return Split(list(clips), [result for result in results if result not in clips], others)


def _is_result(clip: Path) -> bool:
    original = names.RESULT_PATTERN.fullmatch(clip.stem)
    beside = (path for path in clip.parent.iterdir() if path.suffix.lower() in _SUFFIXES)
    return original is not None and any(names.caseless(path.stem) == names.caseless(original[1]) for path in beside)


def plan_clips(
    clips: list[Path], output: str | None = None, skip_existing: bool = False, alone: bool = True
) -> dict[Path, Path]:
    """Choose a path for the result of each clip: no two results share one, and no input is overwritten.

    `output` is a file if it has the suffix of a clip, else a folder; without it, each result goes beside its clip.
    With `skip_existing`, clips whose result exists, and is not older, are left out. `alone` says that no photograph is
    restored besides. Raises OutputError.
    """
    if not clips:
        if output is not None and Path(output).suffix.lower() in _SUFFIXES and not os.path.isdir(output):
            reason = "is a clip's name, and no input has the suffix of a clip."
            advice = "Name a .png or .jpg file, or a folder; a clip needs a suffix such as .mp4."
            raise OutputError(reason, advice, subject=Path(output))
        return {}
    if output is not None and names.names_file(output):
        reason = "is a photograph's name, and a clip becomes MP4."
        raise OutputError(reason, "Name a .mp4 file, or a folder.", subject=Path(output))
    if output is None:
        wanted = [clip.with_name(f"{clip.stem}_dehazed.mp4") for clip in clips]
    elif (suffix := Path(output).suffix.lower()) not in _SUFFIXES or os.path.isdir(output):
        wanted = [Path(output, f"{clip.stem}.mp4") for clip in clips]
    elif suffix not in _WRITABLE:
        raise OutputError("cannot be written: clips are written as MP4.", "Name it .mp4.", subject=Path(output))
    elif len(clips) > 1 or not alone:
        raise OutputError("is one file, but more are given.", "Name a folder.", subject=Path(output))
    else:
        wanted = [Path(output)]
    taken: set[str] = set()
    targets = {clip: names.claim_path(target, taken) for clip, target in zip(clips, wanted, strict=True)}
    for target in targets.values():
        if target.exists() and any(clip.exists() and target.samefile(clip) for clip in clips):
            raise OutputError("is an input and would be overwritten.", "Choose another output.", subject=target)
    return {clip: target for clip, target in targets.items() if not (skip_existing and exists_since(clip, target))}


def restore_clips(
    targets: dict[Path, Path], dehazer: Dehazer, strength: float = 1.0, strip_metadata: bool = False
) -> list[tuple[Path, Exception]]:
    """Restore each clip into its target, show progress, and return those that failed. No failure ends the others."""
    from dehaze.io.clip import probe_clip
    from dehaze.steady import restore_clip

    failures: list[tuple[Path, Exception]] = []
    for source, target in targets.items():
        began, done = time.perf_counter(), 0
        try:
            clip = probe_clip(source, max_seconds=math.inf, max_side=math.inf)
            with Progress(console=complaints, transient=True) as progress:
                bar = progress.add_task(as_markup(source.name), total=clip.count)
                for done in restore_clip(clip, target, dehazer, strength, strip_metadata):
                    progress.update(bar, completed=done)
        except Exception as error:
            failures.append((source, error))
            continue
        console.print(f"{as_markup(target)}  {done} frames  {time.perf_counter() - began:.2f} s")
        for note in clip.notes:
            complaints.print(f"note: {as_markup(source)}: {note}")
    return failures
