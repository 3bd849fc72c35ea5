"""Find the photographs that a request names, and choose names for their results."""

import glob
import math
import mimetypes
import os
import re
import unicodedata
from collections.abc import Iterable
from functools import cache, partial
from pathlib import Path
from typing import NamedTuple

from dehaze.errors import ImageError, OutputError
from dehaze.io.colour import hdr_transfer
from dehaze.io.files import is_hidden, system_reason
from dehaze.io.photo import OPAQUE, WRITABLE, Photo, format_of

# Suffixes that mark a file in a folder as a photograph: every format that is written or read.
PHOTO_SUFFIXES = frozenset(
    {
        *(*WRITABLE, ".jpe", ".jfif", ".mpo", ".gif", ".avif", ".heic", ".heif", ".hif", ".dib"),
        *(".jp2", ".j2k", ".jpf", ".jpx", ".ppm", ".pgm", ".pbm", ".pnm"),
    }
)
_MAX_SIDES = {"JPEG": 65_500, "WEBP": 16_383}  # px
_DEEP = ("PNG", "TIFF")  # formats with 16 bits
RESULT_PATTERN = re.compile(r"(.+)_(?:dehazed|haze_density)(?:_\d+)?", re.DOTALL)  # `claim_path` adds the number
_STEM_BYTES = 223  # of a name's 255, which leaves room for an ending, a number and a suffix


class Found(NamedTuple):
    """The photographs to restore, and what is skipped: results of earlier runs, and files that are no photographs."""

    photos: list[Path]
    results: list[Path]
    others: list[Path]


def find_photos(
    patterns: str | os.PathLike | Iterable[str | os.PathLike], output: str | os.PathLike | None = None
) -> Found:
    """List the photographs that files, folders and glob patterns name, in their order, each once.

    A file counts whatever its name. Folders are searched recursively, without hidden names. Folders and glob patterns
    give the files with the suffix of an image, sorted, without results whose originals are in the same folder, and
    without those in the folder `output` that is to hold the results. Raises ImageError for a pattern that names no
    photograph.
    """
    photos: dict[str, Path] = {}
    results: dict[str, Path] = {}
    others: dict[str, Path] = {}
    stems, is_output = cache(_stems), cache(partial(_lies_in, folder=output))
    for pattern in [patterns] if isinstance(patterns, str | os.PathLike) else patterns:
        if os.path.exists(pattern) and not os.path.isdir(pattern):
            photos.setdefault(_canonical(Path(pattern)), Path(pattern))
            continue
        files = _files_below(Path(pattern)) if os.path.isdir(pattern) else _glob(str(pattern))
        if not any(map(_is_image, files)):
            raise ImageError(
                "names no photograph.",
                "Give files, folders that hold images, or patterns such as 'photos/*.jpg'.",
                subject=repr(str(pattern)),
            )
        names_output = is_output(Path(pattern))
        for file in files:
            original = RESULT_PATTERN.fullmatch(file.stem)
            if _is_image(file):
                is_result = original is not None and caseless(original[1]) in stems(file.parent)
                is_result |= is_output(file.parent) and not names_output
                (results if is_result else photos).setdefault(_canonical(file), file)
            elif file.suffix.lower() not in PHOTO_SUFFIXES:
                others.setdefault(_canonical(file), file)
    if results and not photos:
        raise ImageError(
            "is a result of an earlier run, and there is no other photograph.",
            "Give the file by its name to restore it again.",
            subject=next(iter(results.values())),
        )
    skipped = ([file for place, file in kind.items() if place not in photos] for kind in (results, others))
    return Found(list(photos.values()), *skipped)


def _lies_in(path: Path, folder: str | os.PathLike | None) -> bool:
    """Return whether a path is a folder, or lies in it."""
    return folder is not None and Path(os.path.realpath(path)).is_relative_to(os.path.realpath(folder))


def _canonical(file: Path) -> str:
    """Return one path for all paths to a file; a link with a name of its own stays another file."""
    return os.path.join(os.path.realpath(file.parent), file.name)


def _stems(folder: Path) -> set[str]:
    stems = [file.stem for file in folder.iterdir() if file.suffix.lower() in PHOTO_SUFFIXES]
    return {caseless(stem) for stem in (*stems, *map(_shortened, stems))}


def _glob(pattern: str) -> list[Path]:
    written_out = Path(pattern).parts
    matches: list[Path] = []
    for match in map(Path, sorted(glob.glob(pattern, recursive=True))):
        if any(is_hidden(part) and part not in written_out for part in match.parts):
            continue
        if match.is_dir():
            matches += _files_below(match)
        else:
            matches.append(match)
    return matches


def _files_below(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise ImageError(
            f"cannot be searched: {system_reason(error)}.", "Check its permissions.", subject=error.filename
        ) from error

    found: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not is_hidden(name)]
        found += [Path(parent, name) for name in files if not is_hidden(name)]
    return sorted(found)


def _is_image(path: Path) -> bool:
    """Return whether the suffix is that of an image. Pipes and devices do not count; broken links do, so they fail."""
    return path.suffix.lower() in PHOTO_SUFFIXES and (os.path.isfile(path) or not os.path.exists(path))


def output_name(name: str, photo: Photo | None = None, suffix: str | None = None) -> str:
    """Name a restored file after its input, in the format of `suffix` or of the input; PNG if that cannot hold it."""
    path = Path(name)
    wanted = Path(f"{_shortened(path.stem)}_dehazed{suffix or _writable(path.suffix.lower())}")
    return (wanted if photo is None or holds(wanted, photo, chosen=suffix is not None) else _as_png(wanted)).name


def density_name(name: str) -> str:
    """Name the map of the haze density of a photograph."""
    return f"{_shortened(Path(name).stem)}_haze_density.png"


def _shortened(stem: str) -> str:
    """Cut a stem after a whole character, so that the names of its results are no longer than file systems allow."""
    stem = stem[:_STEM_BYTES]
    while len(stem.encode("utf-8", "surrogatepass")) > _STEM_BYTES:
        stem = stem[:-1]
    return stem


def holds(path: Path, photo: Photo, chosen: bool = False) -> bool:
    """Return whether the format of a suffix can hold a photograph; if somebody chose it, 8 bits of 16 do."""
    format_name, _ = WRITABLE[path.suffix.lower()]
    if photo.is_transparent and format_name in OPAQUE:
        return False
    if format_name != "PNG" and hdr_transfer(photo.metadata.marks):
        return False
    if max(photo.pixels.shape[:2]) > _MAX_SIDES.get(format_name, math.inf):
        return False
    return chosen or photo.pixels.itemsize == 1 or format_name in _DEEP


def choose_targets(photos: list[Path], output: str | None = None) -> dict[Path, Path]:
    """Choose a path for each result: no two results share one, and no input is overwritten.

    `output` is a file if it has the suffix of an image, else a folder, in which subfolders are kept. Without it, each
    result goes beside its photograph. Raises OutputError.
    """
    if not photos:
        return {}
    if output is None:
        wanted = [photo.with_name(output_name(photo.name)) for photo in photos]
    elif names_file(output):
        if len(photos) > 1:
            raise OutputError(
                f"is one file, but {len(photos)} photographs are given.", "Name a folder.", subject=Path(output)
            )
        format_of(Path(output))  # refuses an unknown suffix before the photograph is restored
        wanted = [Path(output)]
    else:
        folders = [os.path.realpath(photo.parent) for photo in photos]
        root = os.path.commonpath(folders) if folders else ""
        wanted = [
            Path(output, os.path.relpath(folder, root), f"{photo.stem}{_writable(photo.suffix)}")
            for photo, folder in zip(photos, folders, strict=True)
        ]
    taken = _folders(wanted)
    targets = {photo: _claim(target, taken) for photo, target in zip(photos, wanted, strict=True)}
    names, identities = {caseless(_canonical(photo)) for photo in photos}, {_identity(photo) for photo in photos}
    for target in targets.values():
        if caseless(_canonical(target)) in names or ((found := _identity(target)) and found in identities):
            raise OutputError("is an input and would be overwritten.", "Choose another output.", subject=target)
    return targets


def choose_fallbacks(targets: dict[Path, Path]) -> dict[Path, Path]:
    """Choose a second path, a PNG file, for each result whose target may turn out not to hold it.

    Whether it does is known when the photograph is decoded. The second paths differ from all targets, inputs and each
    other, so they can be chosen beforehand, and by every process and every run alike.
    """
    taken = _folders(targets.values()) | {caseless(_canonical(path)) for path in (*targets, *targets.values())}
    identities = {_identity(photo) for photo in targets}
    fallbacks = {}
    for photo, target in targets.items():
        if WRITABLE[target.suffix.lower()][0] == "PNG":
            continue
        fallback = _claim(_as_png(target), taken)
        while (found := _identity(fallback)) and found in identities:  # by a link
            fallback = _claim(_as_png(target), taken)
        fallbacks[photo] = fallback
    return fallbacks


def names_file(output: str) -> bool:
    """Return whether an output is a file: it has the suffix of an image, and neither is nor ends as a folder."""
    separators = tuple(filter(None, (os.sep, os.altsep)))
    if output.endswith(separators) or os.path.isdir(output):
        return False
    kind, _ = mimetypes.guess_type(Path(output).name)
    return Path(output).suffix.lower() in PHOTO_SUFFIXES or (kind or "").startswith("image/")


def _writable(suffix: str) -> str:
    return suffix if suffix.lower() in WRITABLE else ".png"


def _as_png(path: Path) -> Path:
    return path.with_name(f"{path.stem}.png")


def _folders(targets: Iterable[Path]) -> set[str]:
    """Return the folders of targets, which no target may be called as: `a.gif` beside `a.png/` gives no `a.png`."""
    folders = {Path(os.path.realpath(target.parent)) for target in targets}
    return {caseless(place) for folder in folders for place in (folder, *folder.parents)}


def _claim(path: Path, taken: set[str]) -> Path:
    """Claim a path by the one place that all paths to it have."""
    return path.with_name(claim_path(Path(_canonical(path)), taken).name)


def _identity(path: Path) -> tuple[int, int] | None:
    """Return device and inode, which identify a file whatever the case, Unicode form or link of its name."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def claim_path(path: Path, taken: set[str]) -> Path:
    """Return the path, numbered if it is taken, and add it to `taken`.

    `taken` holds caseless paths: on macOS and Windows, names that differ only in case are one file.
    """
    free, count = path, 1
    while caseless(free) in taken:
        count += 1
        free = path.with_name(f"{path.stem}_{count}{path.suffix}")
    taken.add(caseless(free))
    return free


def caseless(name: str | Path) -> str:
    """Fold case and Unicode composition, so that names that differ only in these become equal."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(name)).casefold())
