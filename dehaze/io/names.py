"""Find the photographs that a request names, and choose names for their results."""

import glob
import os
import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dehaze.errors import ImageError, OutputError
from dehaze.io.files import is_hidden, system_reason
from dehaze.io.photo import WRITABLE, Photo, format_of

# Suffixes that mark a file in a folder as a photograph: every format that is written or read.
_SUFFIXES = {*WRITABLE, ".jpe", ".jfif", ".gif", ".avif", ".jp2", ".ppm", ".pgm", ".heic", ".heif"}
_RESULT_STEM = "{}_dehazed"
_RESULT_PATTERN = re.compile(_RESULT_STEM.format("(.+)") + r"(_\d+)?")  # `claim_path` adds the number


class Found(NamedTuple):
    """The photographs to restore, and the results of earlier runs that are skipped."""

    photos: list[Path]
    results: list[Path]


def find_photos(patterns: str | os.PathLike | Iterable[str | os.PathLike]) -> Found:
    """List the photographs that files, folders and glob patterns name, in their order, each once.

    A file counts whatever its name. Folders are searched recursively, without hidden names. Folders and glob patterns
    give the files with the suffix of an image, sorted, without results whose originals are in the same folder. Raises
    ImageError for a pattern that names no photograph.
    """
    photos: dict[str, Path] = {}
    results: dict[str, Path] = {}
    stems = cache(_stems)
    for pattern in [patterns] if isinstance(patterns, str | os.PathLike) else patterns:
        if os.path.exists(pattern) and not os.path.isdir(pattern):
            photos.setdefault(_canonical(Path(pattern)), Path(pattern))
            continue
        matches = _images_below(Path(pattern)) if os.path.isdir(pattern) else _glob(str(pattern))
        if not matches:
            raise ImageError(
                "names no photograph.",
                "Give files, folders that hold images, or patterns such as 'photos/*.jpg'.",
                subject=repr(str(pattern)),
            )
        for match in matches:
            original = _RESULT_PATTERN.fullmatch(match.stem)
            is_result = original is not None and caseless(original[1]) in stems(match.parent)
            (results if is_result else photos).setdefault(_canonical(match), match)
    if results and not photos:
        raise ImageError(
            "is a result of an earlier run, and there is no other photograph.",
            "Give the file by its name to restore it again.",
            subject=next(iter(results.values())),
        )
    return Found(list(photos.values()), [result for place, result in results.items() if place not in photos])


def _canonical(file: Path) -> str:
    """Return one path for all paths to a file; a link with a name of its own stays another file."""
    return os.path.join(os.path.realpath(file.parent), file.name)


def _stems(folder: Path) -> set[str]:
    return {caseless(file.stem) for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES}


def _glob(pattern: str) -> list[Path]:
    written_out = Path(pattern).parts
    matches: list[Path] = []
    for match in map(Path, sorted(glob.glob(pattern, recursive=True))):
        if any(is_hidden(part) and part not in written_out for part in match.parts):
            continue
        if match.is_dir():
            matches += _images_below(match)
        elif _is_image(match):
            matches.append(match)
    return matches


def _images_below(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise ImageError(
            f"cannot be searched: {system_reason(error)}.", "Check its permissions.", subject=error.filename
        ) from error

    images: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not is_hidden(name)]
        images += [Path(parent, name) for name in files if not is_hidden(name)]
    return sorted(filter(_is_image, images))


def _is_image(path: Path) -> bool:
    """Return whether the suffix is that of an image. Pipes and devices do not count; broken links do, so they fail."""
    return path.suffix.lower() in _SUFFIXES and (os.path.isfile(path) or not os.path.exists(path))


def output_name(name: str, photo: Photo | None = None, suffix: str | None = None) -> str:
    """Name a restored file after its input, in the format of `suffix` or of the input; PNG if that cannot hold it."""
    path = Path(name)
    suffix = suffix or path.suffix.lower()
    transparent = photo is not None and photo.alpha is not None
    if suffix not in WRITABLE or (transparent and suffix in (".jpg", ".jpeg", ".bmp")):
        suffix = ".png"
    return f"{_RESULT_STEM.format(path.stem)}{suffix}"


def choose_targets(photos: list[Path], output: str | None = None) -> dict[Path, Path]:
    """Choose a path for each result: no two results share one, and no input is overwritten.

    `output` is a file if it has the suffix of an image, else a folder, in which subfolders are kept. Without it, each
    result goes beside its photograph. Raises OutputError.
    """
    if output is None:
        wanted = [photo.with_name(output_name(photo.name)) for photo in photos]
    elif _names_file(output):
        if len(photos) > 1:
            raise OutputError(
                f"is one file, but {len(photos)} photographs are given.", "Name a folder.", subject=Path(output)
            )
        format_of(Path(output))  # refuses an unknown suffix before the photograph is restored
        wanted = [Path(output)]
    else:
        folders = [os.path.realpath(photo.parent) for photo in photos]
        root = os.path.commonpath(folders)
        wanted = [
            Path(output, os.path.relpath(folder, root), _writable(photo.name))
            for photo, folder in zip(photos, folders, strict=True)
        ]
    taken: set[str] = set()
    targets = {
        photo: target.with_name(claim_path(Path(_canonical(target)), taken).name)
        for photo, target in zip(photos, wanted, strict=True)
    }
    inputs = {_identity(photo) for photo in photos}
    for target in targets.values():
        if (found := _identity(target)) and found in inputs:
            raise OutputError("is an input and would be overwritten.", "Choose another output.", subject=target)
    return targets


def _names_file(output: str) -> bool:
    separators = tuple(filter(None, (os.sep, os.altsep)))
    return Path(output).suffix.lower() in _SUFFIXES and not output.endswith(separators) and not os.path.isdir(output)


def _writable(name: str) -> str:
    path = Path(name)
    return name if path.suffix.lower() in WRITABLE else f"{path.stem}.png"


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
