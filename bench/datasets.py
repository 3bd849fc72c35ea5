"""Data sets: the shipped sample and local folders, paired by name, every doubt an error.

A set has a fingerprint made of the original bytes of its images, so that a record says what it was scored on.
"""

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from PIL import Image

from bench.errors import DatasetError
from bench.record import DatasetInfo

SAMPLE = Path(__file__).parent / "sample"
SUFFIXES = frozenset({".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".webp"})

_CLEAR_FOLDERS = ("clear", "gt")
_ORIENTATION = 0x0112  # EXIF tag; 5 to 8 swap width and height
_NAMED_AT_MOST = 5  # file names in one message


@dataclass(frozen=True)
class Sample:
    """One hazy image with its clear partner, if it has one, and the SHA-256 of both files."""

    id: str
    hazy: Path
    clear: Path | None
    hazy_sha256: str
    clear_sha256: str | None


@dataclass(frozen=True)
class Dataset:
    """Samples in the order of their ids."""

    name: str
    samples: tuple[Sample, ...]

    @property
    def pairs(self) -> int:
        """Count the samples that have a clear image."""
        return sum(sample.clear is not None for sample in self.samples)

    @cached_property
    def fingerprint(self) -> str:
        """Hash what the set consists of: ids and original bytes, wherever the files lie."""
        lines = sorted(f"{s.id}\t{s.hazy_sha256}\t{s.clear_sha256 or '-'}\n" for s in self.samples)
        return hashlib.sha256("".join(lines).encode()).hexdigest()

    @property
    def info(self) -> DatasetInfo:
        """Return what a record says of the set."""
        return DatasetInfo(name=self.name, samples=len(self.samples), pairs=self.pairs, fingerprint=self.fingerprint)


def names() -> list[str]:
    """List what `load` takes."""
    return ["sample", "folder:PATH"]


def load(spec: str, *, name: str | None = None, limit: int | None = None) -> Dataset:
    """Load `sample` or `folder:PATH`; with `limit`, its first samples under a name of their own.

    A folder holds `hazy/` and, for pairs, `clear/` (or `gt/`); or images alone, which are unpaired unless their names
    end in `_hazy` and `_GT`. `name` replaces the `folder:NAME` that goes into the record.
    Raises DatasetError naming the files that cannot be paired, are doubtful, or differ in size.
    """
    if spec == "sample":
        if name is not None:
            raise DatasetError("the data set 'sample' keeps its name: leave --name out")
        real = ((f"real/{path.stem}", path, None) for path in find_images(SAMPLE / "real"))
        samples = _folder(SAMPLE) + _samples(real)
        dataset = Dataset("sample", tuple(sorted(samples, key=lambda sample: sample.id)))
    elif spec.startswith("folder:"):
        root = Path(spec.removeprefix("folder:")).expanduser().resolve()
        if name in ("", "sample"):
            raise DatasetError(f"a folder cannot be called {name!r}: choose another --name")
        dataset = Dataset(name or f"folder:{root.name}", tuple(_folder(root)))
    else:
        raise DatasetError(f"no data set is called {spec!r}; known: {', '.join(names())}")
    if limit is not None and limit < len(dataset.samples):
        # A part never goes under the name of the whole.
        dataset = replace(dataset, name=f"{dataset.name}-first{limit}", samples=dataset.samples[:limit])
    return dataset


def find_images(folder: Path) -> list[Path]:
    """List the images directly in `folder`, sorted by name.

    Raises DatasetError if there is none, or if two differ in nothing but their suffix.
    """
    images = _images(folder)
    stems = Counter(path.stem for path in images)
    if doubles := [path.name for path in images if stems[path.stem] > 1]:
        raise DatasetError(f"{folder} holds images of the same name: {some(doubles)}. Keep one of each.")
    if not images:
        inner = sorted(path.name for path in folder.iterdir() if path.is_dir() and _images(path))
        hint = f" Images lie in {some(inner)} inside it: name that folder." if inner else ""
        raise DatasetError(f"{folder} holds no image.{hint}")
    return images


def pair(hazy: Sequence[Path], clear: Sequence[Path]) -> dict[Path, Path]:
    """Pair hazy with clear images by their names, without suffix, and return {hazy: clear}.

    A hazy image belongs to the clear image of the same name; failing that, to the one clear image whose name is left
    when `_hazy`, `_GT` or `_clear` and, one by one, trailing `_NUMBER` parts are dropped: `0001_0.8_0.2` and `0001`,
    `01_hazy` and `01_GT`. Several hazy images may share one clear image.
    Raises DatasetError if a hazy image has no partner or several, or if a clear image is never used.
    """
    same_name = {path.stem: path for path in clear}
    by_key: dict[str, list[Path]] = defaultdict(list)
    for path in clear:
        by_key[re.sub(r"_(gt|clear)$", "", path.stem.lower())].append(path)
    partners = {
        path: [same_name[path.stem]] if path.stem in same_name else _candidates(path.stem, by_key) for path in hazy
    }

    if lonely := [path.name for path, found in partners.items() if not found]:
        raise DatasetError(
            f"no clear image for {some(lonely)}. Give the clear image the same name, or take the hazy one out."
        )
    if doubtful := [_doubt(path, found) for path, found in partners.items() if len(found) > 1]:
        raise DatasetError(f"more than one clear image could belong to {some(doubtful)}. Keep one of them.")
    if unused := sorted({path.name for path in clear} - {found[0].name for found in partners.values()}):
        raise DatasetError(f"no hazy image uses the clear image {some(unused)}. Take it out, or add its hazy image.")
    return {path: found[0] for path, found in partners.items()}


def _candidates(hazy: str, by_key: dict[str, list[Path]]) -> list[Path]:
    key = re.sub(r"_(hazy|haze)$", "", hazy.lower())
    found = list(by_key.get(key, []))
    while (shorter := re.sub(r"_[0-9.]+$", "", key)) != key:
        key = shorter
        found += by_key.get(key, [])
    return found


def _doubt(hazy: Path, found: list[Path]) -> str:
    return f"{hazy.name} ({' or '.join(path.name for path in found)}?)"


def _folder(root: Path) -> list[Sample]:
    if not root.is_dir():
        raise DatasetError(f"{root} is no folder: give the folder that holds hazy/ or the images")
    folders = {path.name.lower(): path for path in root.iterdir() if path.is_dir()}
    clear_folders = [folders[name] for name in _CLEAR_FOLDERS if name in folders]
    if len(clear_folders) > 1:
        raise DatasetError(f"{root} holds both clear/ and gt/: keep the one with the clear images")
    if "hazy" in folders:
        hazy = find_images(folders["hazy"])
        clear = find_images(clear_folders[0]) if clear_folders else []
    elif clear_folders:
        raise DatasetError(f"{root} holds {clear_folders[0].name}/ but no hazy/: put the hazy images into hazy/")
    else:
        images = find_images(root)
        clear = [path for path in images if path.stem.lower().endswith("_gt")]
        hazy = [path for path in images if path not in clear]
    if not clear:
        return _samples((path.stem, path, None) for path in hazy)
    try:
        partners = pair(hazy, clear)
    except DatasetError as error:
        raise DatasetError(f"{root}: {error}") from None
    return _samples((path.stem, path, partners[path]) for path in hazy)


def _samples(files: Iterable[tuple[str, Path, Path | None]]) -> list[Sample]:
    samples, unequal, hashes = [], [], {}
    for id_, hazy, clear in files:
        if clear is not None:
            sizes = upright_size(hazy), upright_size(clear)
            if None not in sizes and sizes[0] != sizes[1]:
                unequal.append("{} is {}×{} but {} is {}×{}".format(_near(hazy), *sizes[0], _near(clear), *sizes[1]))
        for path in (hazy, clear):
            if path is not None and path not in hashes:
                hashes[path] = _sha256(path)
        samples.append(Sample(id_, hazy, clear, hashes[hazy], hashes.get(clear)))
    if unequal:
        raise DatasetError(f"sizes differ: {some(unequal)}. Crop or resize the pair to one size.")
    return samples


def _images(folder: Path) -> list[Path]:
    if not folder.is_dir():
        raise DatasetError(f"{folder} is no folder")
    paths = (path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES and not path.name.startswith("."))
    return sorted(paths, key=lambda path: path.stem)


def upright_size(path: Path) -> tuple[int, int] | None:
    """Read width and height, upright, from the header; None if it is damaged, which the run reports as a failure."""
    try:
        with Image.open(path) as image:
            turned = image.getexif().get(_ORIENTATION) in (5, 6, 7, 8)
            return image.size[::-1] if turned else image.size
    except Exception:  # Pillow's decoders raise many kinds on damaged files
        return None


def _near(path: Path) -> str:
    return f"{path.parent.name}/{path.name}"


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error.strerror}") from None


def some(names: Sequence[str]) -> str:
    """Join the first few names for a message, and count the rest."""
    more = f" and {len(names) - _NAMED_AT_MOST} more" if len(names) > _NAMED_AT_MOST else ""
    return ", ".join(names[:_NAMED_AT_MOST]) + more
