"""Images in folders: which belong to a set, which clear one belongs to which hazy one, whether their sizes agree."""

import hashlib
import math
import os
import re
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path, PurePath
from typing import TypeVar

from PIL import Image
from pydantic import ConfigDict

from bench.errors import DatasetError
from dehaze.io.files import is_hidden
from dehaze.io.names import PHOTO_SUFFIXES as SUFFIXES
from dehaze.io.photo import read_photo, read_photo_header

_NAMED_AT_MOST = 5  # file names in one message
_DEEPEST = 2  # folders below a set's own in which images are looked for


@dataclass(frozen=True)
class Sample:
    """One hazy image with its clear partner, if it has one, and the SHA-256 of both files.

    `border` is what the clear image has more on each of its sides, in pixels: cut away before the two are compared.
    """

    id: str
    hazy: Path
    clear: Path | None
    hazy_sha256: str
    clear_sha256: str | None
    border: int = 0


@dataclass(frozen=True)
class Layout:
    """Where a set keeps its images: folders below its own, as shell patterns in lower case, of which one applies.

    Without any of them the images lie in the set's own folder, and those whose names end in `_GT` are the clear ones.
    `border` is the number of pixels that a clear image may have more on each side, cut away centrally.
    """

    __pydantic_config__ = ConfigDict(extra="forbid")  # where it is read from the catalogue

    hazy: tuple[str, ...] = ("hazy", "haze")
    clear: tuple[str, ...] = ("clear", "gt")
    border: int = 0


PLAIN = Layout()

AnyPath = TypeVar("AnyPath", bound=PurePath)
Files = tuple[str, Path, Path | None, int]  # id, hazy, clear, border that the clear one may have


def find_images(folder: Path) -> list[Path]:
    """List the images directly in `folder`, sorted by name.

    Raises DatasetError if there is none, or if two differ in nothing but their suffix.
    """
    return [folder / path for path in arrange(_listing(folder, 0), Layout((), ()), folder)]


def read_folder(root: Path, layout: Layout) -> list[Sample]:
    """Read the samples of a set that lies in `root`. Raises DatasetError on whatever leaves a doubt."""
    files = arrange(_listing(root, _DEEPEST), layout, root)
    return make_samples(
        (id_, root / hazy, None if clear is None else root / clear, layout.border)
        for hazy, (id_, clear) in files.items()
    )


def arrange(paths: Iterable[AnyPath], layout: Layout, place: Path | str) -> dict[AnyPath, tuple[str, AnyPath | None]]:
    """Sort the images of a set, given by their paths inside it, into {hazy: (id, clear)}, in the order of their ids.

    The id is the name of the hazy image, with its folder where the set has several of them.
    Raises DatasetError about `place` that names the files that leave a doubt.
    """
    folders: dict[str, list[AnyPath]] = defaultdict(list)
    for path in sorted(paths):
        folders[path.parent.as_posix()].append(path)
    try:
        hazy_folders, clear_folders = (_matching(folders, patterns) for patterns in (layout.hazy, layout.clear))
        if clear_folders and not hazy_folders:
            wanted = layout.hazy[0]
            raise DatasetError(f"holds {clear_folders[0]}/ but no {wanted}/.", f"Put the hazy images into {wanted}/.")
        for folder in (*hazy_folders, *clear_folders) or (".",):
            _refuse_nested(folders, folder)
        hazy = _distinct(folders, hazy_folders or ["."])
        clear = _distinct(folders, clear_folders)
        if layout.clear and not hazy_folders:
            clear = [path for path in hazy if path.stem.lower().endswith("_gt")]
            hazy = [path for path in hazy if not path.stem.lower().endswith("_gt")]
        if not hazy and not clear:
            inner = [folder for folder in folders if folder != "."]
            tops = {PurePath(folder).parts[0] for folder in inner}
            if sides := [top for top in sorted(tops) if _matching([top], (*layout.hazy, *layout.clear))]:
                places = " and ".join(f"{side}/" for side in sides)
                raise DatasetError(f"holds images in {some(inner)}.", f"Put them directly into {places}.")
            advice = f"Images lie in {some(inner)} inside it: name that folder." if inner else ""
            raise DatasetError("holds no image.", advice)
        partners = pair(hazy, clear) if clear else dict.fromkeys(hazy)
    except DatasetError as error:
        error.subject = place
        raise
    many = len(hazy_folders) > 1
    ids = {path: path.with_suffix("").as_posix() if many else path.stem for path in hazy}
    return {path: (ids[path], partners[path]) for path in sorted(hazy, key=ids.__getitem__)}


def _matching(folders: Iterable[str], patterns: Sequence[str]) -> list[str]:
    found = {pattern: [folder for folder in folders if fnmatchcase(folder.lower(), pattern)] for pattern in patterns}
    found = {pattern: matches for pattern, matches in found.items() if matches}
    alike = [matches for pattern, matches in found.items() if len(matches) > 1 and not set("*[") & set(pattern)]
    if len(found) > 1 or alike:
        both = " and ".join(f"{folder}/" for matches in found.values() for folder in matches)
        raise DatasetError(f"holds both {both}.", "Keep one of them.")
    return next(iter(found.values()), [])


def _refuse_nested(folders: Iterable[str], chosen: str) -> None:
    """Refuse images in folders inside one that holds images itself: whether they belong to the set is in doubt."""
    inner = [folder for folder in folders if folder != chosen and PurePath(folder).is_relative_to(chosen)]
    if inner and chosen in folders:
        place = "of its own" if chosen == "." else f"in {chosen}/"
        raise DatasetError(
            f"holds images {place} and images in {some([f'{folder}/' for folder in inner])}.",
            "Name one of these folders, or put all images of the set into one.",
        )


def _distinct(folders: dict[str, list[AnyPath]], chosen: Iterable[str]) -> list[AnyPath]:
    paths = [path for folder in chosen for path in folders.get(folder, ())]
    names = Counter((path.parent, path.stem) for path in paths)
    if doubles := [path.name for path in paths if names[path.parent, path.stem] > 1]:
        raise DatasetError(f"holds images of the same name: {some(doubles)}.", "Keep one of each.")
    return paths


def pair(hazy: Sequence[AnyPath], clear: Sequence[AnyPath]) -> dict[AnyPath, AnyPath]:
    """Pair hazy with clear images by their names, without suffix, and return {hazy: clear}.

    A hazy image belongs to the clear image of the same name; failing that, to the one clear image whose name is left
    when `_hazy`, `_GT` or `_clear` and, one by one, trailing `_NUMBER` parts are dropped: `0001_0.8_0.2` and `0001`,
    `01_hazy` and `01_GT`. Several hazy images may share one clear image.
    Raises DatasetError, to which the caller adds the subject, if a hazy image has no partner or several, or if a clear
    image is never used.
    """
    same_name = {_composed(path.stem): path for path in clear}
    by_key: dict[str, list[AnyPath]] = defaultdict(list)
    for path in clear:
        by_key[re.sub(r"_(gt|clear)$", "", _composed(path.stem).lower())].append(path)
    stems = {path: _composed(path.stem) for path in hazy}
    partners = {
        path: [same_name[stem]] if stem in same_name else _candidates(stem, by_key) for path, stem in stems.items()
    }

    if lonely := [path.name for path, found in partners.items() if not found]:
        raise DatasetError(
            f"has no clear image for {some(lonely)}.", "Give the clear image the same name, or take the hazy one out."
        )
    if doubtful := [_doubt(path, found) for path, found in partners.items() if len(found) > 1]:
        raise DatasetError(f"has more than one clear image for {some(doubtful)}.", "Keep one of them.")
    if unused := sorted({path.name for path in clear} - {found[0].name for found in partners.values()}):
        raise DatasetError(
            f"has no hazy image for the clear image {some(unused)}.", "Take it out, or add its hazy image."
        )
    return {path: found[0] for path, found in partners.items()}


def _composed(name: str) -> str:
    """Compose letters and marks: macOS stores names decomposed, and other systems do not."""
    return unicodedata.normalize("NFC", name)


def _candidates(hazy: str, by_key: dict[str, list[AnyPath]]) -> list[AnyPath]:
    key = re.sub(r"_(hazy|haze)$", "", hazy.lower())
    found = list(by_key.get(key, []))
    while (shorter := re.sub(r"_[0-9.]+$", "", key)) != key:
        key = shorter
        found += by_key.get(key, [])
    return found


def _doubt(hazy: PurePath, found: Sequence[PurePath]) -> str:
    return f"{hazy.name} ({' or '.join(path.name for path in found)}?)"


def make_samples(files: Iterable[Files]) -> list[Sample]:
    """Hash the files of each pair and compare their sizes.

    A clear image may have the pair's border more on each side, which the sample then says; any other difference is a
    DatasetError that names the files, and so are transparent pixels of a clear image. A damaged image has no size and
    is left to the run, which reports it.
    """
    samples, unequal, transparent, hashes = [], [], [], {}
    for id_, hazy, clear, border in files:
        cut = 0
        if clear is not None:
            inner, outer = upright_size(hazy), upright_size(clear)
            if inner and outer and inner != outer:
                if border and outer == tuple(side + 2 * border for side in inner):
                    cut = border
                else:
                    unequal.append("{} is {}×{} but {} is {}×{}".format(_near(hazy), *inner, _near(clear), *outer))
        for path in (hazy, clear):
            if path is not None and path not in hashes:
                hashes[path] = _sha256(path)
                if path == clear and _is_transparent(path):
                    transparent.append(_near(path))
        samples.append(Sample(id_, hazy, clear, hashes[hazy], hashes.get(clear), cut))
    if unequal:
        raise DatasetError(f"Sizes differ: {some(unequal)}.", "Crop or resize the pair to one size.")
    if transparent:
        raise DatasetError(
            f"Clear images have transparent pixels, which show no scene to compare with: {some(transparent)}.",
            "Crop them to what is opaque, or take them out.",
        )
    return samples


def upright_size(path: Path) -> tuple[int, int] | None:
    """Read width and height, upright, from the header; None if it is damaged, which the run reports as a failure."""
    try:
        header = read_photo_header(path)
    except Exception:  # whatever a decoder raises on a damaged file
        return None
    return header.width, header.height


def _is_transparent(path: Path) -> bool:
    """Return whether any pixel of an image is not opaque; False if it is damaged."""
    try:
        with Image.open(path) as image:
            has_alpha = image.has_transparency_data
        return has_alpha and read_photo(path, max_megapixels=math.inf).is_transparent
    except Exception:  # as above
        return False


def images_by_id(folder: Path) -> dict[str, Path]:
    """Return the images in a folder and below by id, which is the path without suffix.

    Raises DatasetError if two have one id.
    """
    found: dict[str, Path] = {}
    for path in sorted(folder.rglob("*")):
        inside = path.relative_to(folder)
        if path.suffix.lower() not in SUFFIXES or any(map(is_hidden, inside.parts)):
            continue
        id_ = inside.with_suffix("").as_posix()
        if id_ in found:
            both = f"{found[id_].name} and {path.name}"
            raise DatasetError(f"holds {both}.", "Keep one of the two.", subject=folder)
        found[id_] = path
    return found


def left_over(root: Path, samples: Iterable[Sample]) -> list[str]:
    """List what a folder holds besides the images of `samples`: files, and folders that are not looked into."""
    taken = {path for sample in samples for path in (sample.hazy, sample.clear)}
    found = []
    for inside, folders, names in _walk(root, _DEEPEST):
        if len(inside.parts) == _DEEPEST:
            found += [f"{(inside / folder).as_posix()}/" for folder in folders]
        found += [(inside / name).as_posix() for name in names if root / inside / name not in taken]
    return sorted(found)


def _listing(root: Path, depth: int) -> list[PurePath]:
    if not root.is_dir():
        raise DatasetError("is no folder.", "Give the folder that holds hazy/ or the images.", subject=root)
    images = (inside / name for inside, _, names in _walk(root, depth) for name in names)
    return [path for path in images if path.suffix.lower() in SUFFIXES]


def _walk(root: Path, depth: int) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Yield each folder down to a depth, by its path inside `root`, its folders and its files, without hidden names."""
    for place, folders, names in os.walk(root, followlinks=True):  # data often lies behind links
        inside = Path(place).relative_to(root)
        folders[:] = [folder for folder in folders if not is_hidden(folder)]
        yield inside, list(folders), [name for name in names if not is_hidden(name)]
        if len(inside.parts) == depth:
            folders.clear()


def _near(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DatasetError(f"cannot be read: {error.strerror}.", subject=path) from None


def some(names: Sequence[str]) -> str:
    """Join the first few names for a message, and count the rest."""
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return ", ".join(names[:_NAMED_AT_MOST]) + more
