"""Which photographs a request names, and what their results are called."""

import glob
import os
import re
import unicodedata
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import NamedTuple

from dehaze.errors import ImageError, OutputError
from dehaze.io.files import is_hidden, reason
from dehaze.io.photo import WRITABLE, Photo, format_of

# What a folder is searched for: all that is written and all else that can be read.
_SUFFIXES = {*WRITABLE, ".jpe", ".jfif", ".gif", ".avif", ".jp2", ".ppm", ".pgm", ".heic", ".heif"}
_RESULT = "{}_dehazed"
_RESULT_STEM = re.compile(_RESULT.format("(.+)") + r"(_\d+)?")  # numbered as by `claim`


class Found(NamedTuple):
    """The photographs to restore, and the results of earlier runs that were passed over."""

    photos: list[Path]
    results: list[Path]


def find(patterns: str | os.PathLike | Iterable[str | os.PathLike]) -> Found:
    """List the photographs that files, folders and glob patterns name: in their order, each once.

    A file is taken whatever its name. Folders (to the bottom, hidden names skipped) and glob patterns give the files
    that have the suffix of an image, sorted, less the results whose originals lie beside them. Raises ImageError for a
    pattern that names none.
    """
    photos: dict[str, Path] = {}
    results: dict[str, Path] = {}
    stems = cache(_stems)
    for pattern in [patterns] if isinstance(patterns, str | os.PathLike) else patterns:
        if os.path.exists(pattern) and not os.path.isdir(pattern):
            photos.setdefault(_place(Path(pattern)), Path(pattern))
            continue
        matches = _images_below(Path(pattern)) if os.path.isdir(pattern) else _glob(str(pattern))
        if not matches:
            raise ImageError(
                f"No photograph found for {str(pattern)!r}. Give files, folders that hold images, or patterns such as "
                "'photos/*.jpg'."
            )
        for match in matches:
            original = _RESULT_STEM.fullmatch(match.stem)
            is_result = original is not None and caseless(original[1]) in stems(match.parent)
            (results if is_result else photos).setdefault(_place(match), match)
    if results and not photos:
        raise ImageError(
            f"All that was found are results of earlier runs, such as {next(iter(results.values()))}. "
            "Give such a file by its name to restore it again."
        )
    return Found(list(photos.values()), [result for place, result in results.items() if place not in photos])


def _place(file: Path) -> str:
    """Return what is the same for all paths to a file; another name, as a link has, is another place."""
    return os.path.join(os.path.realpath(file.parent), file.name)


def _stems(folder: Path) -> set[str]:
    return {caseless(file.stem) for file in folder.iterdir() if file.suffix.lower() in _SUFFIXES}


def _glob(pattern: str) -> list[Path]:
    outright = Path(pattern).parts
    matches: list[Path] = []
    for match in map(Path, sorted(glob.glob(pattern, recursive=True))):
        if any(is_hidden(part) and part not in outright for part in match.parts):
            continue
        if match.is_dir():
            matches += _images_below(match)
        elif _is_image(match):
            matches.append(match)
    return matches


def _images_below(folder: Path) -> list[Path]:
    def refuse(error: OSError) -> None:
        raise ImageError(f"Cannot look into {error.filename}: {reason(error)}. Check its permissions.") from error

    images: list[Path] = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not is_hidden(name)]
        images += [Path(parent, name) for name in files if not is_hidden(name)]
    return sorted(filter(_is_image, images))


def _is_image(path: Path) -> bool:
    """Tell it by the suffix. Pipes, sockets and devices are none; a broken link is one, so that it is reported."""
    return path.suffix.lower() in _SUFFIXES and (os.path.isfile(path) or not os.path.exists(path))


def output_name(name: str, photo: Photo | None = None, suffix: str | None = None) -> str:
    """Name a restored file after its input, in the format of `suffix` or the input's own, if that can hold it."""
    path = Path(name)
    suffix = suffix or path.suffix.lower()
    transparent = photo is not None and photo.alpha is not None
    if suffix not in WRITABLE or (transparent and suffix in (".jpg", ".jpeg", ".bmp")):
        suffix = ".png"
    return f"{_RESULT.format(path.stem)}{suffix}"


def choose_targets(photos: list[Path], output: str | None = None) -> dict[Path, Path]:
    """Choose where each result goes: never onto a photograph to restore, no two to one place.

    `output` is a file if it has the suffix of an image, else a folder, in which subfolders are kept; without it,
    results go beside the photographs. Raises OutputError.
    """
    if output is None:
        wanted = [photo.with_name(output_name(photo.name)) for photo in photos]
    elif _names_file(output):
        if len(photos) > 1:
            raise OutputError(f"{output} is one file, but {len(photos)} photographs are given; name a folder")
        format_of(Path(output))  # refused now, not once the photograph is restored
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
        photo: target.with_name(claim(Path(_place(target)), taken).name)
        for photo, target in zip(photos, wanted, strict=True)
    }
    inputs = {_identity(photo) for photo in photos}
    for target in targets.values():
        if (found := _identity(target)) and found in inputs:
            raise OutputError(f"{target} is an input and would be overwritten; choose another --output")
    return targets


def _names_file(output: str) -> bool:
    separators = tuple(filter(None, (os.sep, os.altsep)))
    return Path(output).suffix.lower() in _SUFFIXES and not output.endswith(separators) and not os.path.isdir(output)


def _writable(name: str) -> str:
    path = Path(name)
    return name if path.suffix.lower() in WRITABLE else f"{path.stem}.png"


def _identity(path: Path) -> tuple[int, int] | None:
    """Return what the file system knows a file by, whatever it makes of case, Unicode forms and links."""
    try:
        found = path.stat()
    except (OSError, ValueError):
        return None
    return found.st_dev, found.st_ino


def claim(path: Path, taken: set[str]) -> Path:
    """Number a path that is taken, and take it.

    `taken` holds paths as `caseless` gives them: macOS and Windows keep one file for names that differ only there.
    """
    free, count = path, 1
    while caseless(free) in taken:
        count += 1
        free = path.with_name(f"{path.stem}_{count}{path.suffix}")
    taken.add(caseless(free))
    return free


def caseless(name: str | Path) -> str:
    """Make names equal that differ in case, or in how Unicode composes a letter, alone."""
    return unicodedata.normalize("NFC", unicodedata.normalize("NFC", str(name)).casefold())
