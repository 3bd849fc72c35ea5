"""Data sets: the catalogue, local folders, the Hub, the shipped sample; every doubt an error.

A set has a fingerprint made of the original bytes of its images, so that a record says what it was scored on.
"""

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from bench.datasets import catalogue, hub, prepared
from bench.datasets.catalogue import Entry, contaminated
from bench.datasets.files import (
    PLAIN,
    SUFFIXES,
    Layout,
    Sample,
    find_images,
    images_by_id,
    left_over,
    make_samples,
    pair,
    read_folder,
    some,
    upright_size,
)
from bench.errors import DatasetError
from bench.record import DatasetInfo

__all__ = [
    "SAMPLE",
    "SUFFIXES",
    "Dataset",
    "Sample",
    "contaminated",
    "expand",
    "find_images",
    "images_by_id",
    "load",
    "pair",
    "read_entry",
    "record_name",
    "some",
    "summaries",
    "upright_size",
]

SAMPLE = Path(__file__).parents[1] / "sample"

_HUB = re.compile(
    r"hub:(?P<repo>[\w.-]+/[\w.-]+)(?:@(?P<revision>[\w./-]+))?(?::(?P<config>[\w.-]+)/(?P<split>[\w.-]+))?"
)

_AS_ANOTHER_SET = "It can be scored as folder:PATH with a --name of its own."


@dataclass(frozen=True)
class Dataset:
    """Samples in the order of their ids; `notes` is what whoever reads the scores should know.

    `protocol` and `metrics` are those that suit the set where the user names none.
    """

    name: str
    samples: tuple[Sample, ...]
    notes: tuple[str, ...] = ()
    protocol: str = "native-v1"
    metrics: tuple[str, ...] = ()

    @property
    def pairs(self) -> int:
        """Count the samples that have a clear image."""
        return sum(sample.clear is not None for sample in self.samples)

    @cached_property
    def fingerprint(self) -> str:
        """Hash what the set consists of: ids, original bytes and what is cut off, wherever the files lie."""
        lines = []
        for sample in self.samples:
            facts = [sample.id, sample.hazy_sha256, sample.clear_sha256 or "-"]
            lines.append("\t".join(facts + [str(sample.border)] * (sample.border > 0)) + "\n")
        return hashlib.sha256("".join(sorted(lines)).encode()).hexdigest()

    @property
    def info(self) -> DatasetInfo:
        """Return what a record says of the set."""
        return DatasetInfo(name=self.name, samples=len(self.samples), pairs=self.pairs, fingerprint=self.fingerprint)


def summaries() -> dict[str, str]:
    """Say in a line what each data set is that `load` or `expand` takes."""
    return {
        "sample": "the sample set that ships with the project",
        "folder:PATH": "a local folder: hazy/ with clear/ or gt/, or hazy images alone",
        "hub:ORG/NAME[@REVISION][:CONFIG/SPLIT]": "a data set on the Hub: columns hazy and clear, or such folders",
        **{name: f"all of {', '.join(parts)}" for name, parts in catalogue.suites().items()},
        **{name: catalogue.get(name).summary for name in catalogue.names()},
    }


def record_name(spec: str) -> str:
    """Return what records call the data set `spec` by default: of a folder its own name, else `spec`."""
    folder = spec.removeprefix("folder:")
    return spec if folder == spec else f"folder:{Path(folder).expanduser().resolve().name}"


def expand(specs: Iterable[str]) -> list[str]:
    """Replace the names of suites by their data sets, and name none twice."""
    return list(dict.fromkeys(name for spec in specs for name in catalogue.suites().get(spec, (spec,))))


def load(
    spec: str, *, name: str | None = None, limit: int | None = None, data_root: str | Path | None = None
) -> Dataset:
    """Load what `summaries` names; with `limit`, its first samples under a name of their own.

    A name of the catalogue is looked for in the folder `data_root`, or without one in its unofficial copy on the Hub.
    A folder holds `hazy/` and, for pairs, `clear/` (or `gt/`); or images alone, which are unpaired unless their names
    end in `_hazy` and `_GT`; or what `bench prepare` wrote. `name` replaces the name of a folder or Hub data set.
    Raises DatasetError naming what cannot be had, paired or trusted: never does a part, or another copy of a set whose
    bytes are known, go under its name.
    """
    if match := _HUB.fullmatch(spec):
        repo, revision, config, split = match.group("repo", "revision", "config", "split")
        samples, notes = hub.load(repo, revision=revision, config=config, split=split, limit=_one_more(limit))
        dataset = Dataset(_own_name(name) or spec, samples, notes)
    elif spec.startswith("folder:"):
        root = Path(spec.removeprefix("folder:")).expanduser().resolve()
        samples = tuple(_read(root, PLAIN))
        others = [] if prepared.lies_in(root) else left_over(root, samples)
        notes = (f"{root.name} holds files that are not scored: {some(others)}",) if others else ()
        dataset = Dataset(_own_name(name) or record_name(spec), samples, notes)
    elif name is not None:
        raise DatasetError(f"The data set {spec!r} keeps its name.", setting="Leave --name out.")
    elif spec == "sample":
        real = [(f"real/{path.stem}", path, None, 0) for path in find_images(SAMPLE / "real")]
        samples = read_folder(SAMPLE, PLAIN) + make_samples(real)
        dataset = Dataset("sample", tuple(sorted(samples, key=lambda sample: sample.id)))
    elif spec.startswith("hub:"):
        raise DatasetError("is not of the form hub:ORG/NAME[@REVISION][:CONFIG/SPLIT].", subject=repr(spec))
    else:
        entry = catalogue.get(spec)
        if data_root is not None:
            dataset = read_entry(entry, _find(entry, Path(data_root).expanduser()))
        else:
            dataset = _from_mirror(entry, limit)
    return _first(dataset, limit)


def read_entry(entry: Entry, root: Path) -> Dataset:
    """Read the catalogue's data set `entry` from the folder `root`, and check it against what is known of it."""
    samples = _read(root, entry.layout)
    return _checked(entry, Dataset(entry.name, tuple(_numbered(samples, entry.numbers))), root)


def _read(root: Path, layout: Layout) -> list[Sample]:
    return prepared.read(root) if prepared.lies_in(root) else read_folder(root, layout)


def _find(entry: Entry, data_root: Path) -> Path:
    folders = list(dict.fromkeys((*entry.folders, entry.name)))
    for folder in folders:
        if (data_root / folder).is_dir():
            return data_root / folder
    raise DatasetError(
        f"does not hold {entry.name}: there is no {' or '.join(f'{folder}/' for folder in folders)}.",
        f"Give the folder that holds it, or get it from {entry.address}.",
        subject=data_root,
    )


def _from_mirror(entry: Entry, limit: int | None) -> Dataset:
    mirror = entry.mirror
    if mirror is None:
        raise DatasetError(
            "has no copy on the Hub that is known.",
            f"Get it from {entry.address}.",
            subject=entry.name,
            setting=f"Give --data-root, the folder that holds {entry.folders[0]}/.",
        )
    samples, notes = hub.load(
        mirror.repo,
        config=mirror.config,
        split=mirror.split,
        layout=entry.layout,
        part=mirror.part,
        limit=None if entry.numbers else _one_more(limit),
    )
    note = f"{entry.name} comes from {mirror.repo}, an unofficial copy; its source is {entry.address}"
    dataset = Dataset(entry.name, tuple(_numbered(samples, entry.numbers)), (note, *notes))
    cut = limit is not None and len(dataset.samples) > limit
    return dataset if cut else _checked(entry, dataset, mirror.repo)


def _one_more(limit: int | None) -> int | None:
    """Return how many samples show whether there are more than `limit`."""
    return None if limit is None else limit + 1


def _numbered(samples: Iterable[Sample], numbers: tuple[int, ...]) -> list[Sample]:
    def wanted(sample: Sample) -> bool:
        number = re.match(r"\d+", sample.id.rsplit("/", 1)[-1])
        return not numbers or (number is not None and int(number[0]) in numbers)

    return [sample for sample in samples if wanted(sample)]


def _checked(entry: Entry, dataset: Dataset, place: Path | str) -> Dataset:
    """Refuse what is not all of the set, or not its bytes, and note what was cut off."""
    for what, count, known in (
        ("images", len(dataset.samples), entry.samples),
        ("pairs", dataset.pairs, entry.pairs),
    ):
        if known is not None and count != known:
            raise DatasetError(
                f"holds {count} {what}, but {entry.name} has {known}.",
                "Complete it.",
                subject=place,
                setting=_AS_ANOTHER_SET,
            )
    if entry.fingerprint is not None and dataset.fingerprint != entry.fingerprint:
        raise DatasetError(
            f"holds other bytes than {entry.name} (fingerprint {dataset.fingerprint[:12]}, not "
            f"{entry.fingerprint[:12]}).",
            "Copy it again.",
            subject=place,
            setting=_AS_ANOTHER_SET,
        )
    if cut := sum(sample.border > 0 for sample in dataset.samples):
        note = f"{cut} clear images of {entry.name} are cut centrally by {entry.layout.border} pixels on each side"
        dataset = replace(dataset, notes=(*dataset.notes, note))
    return replace(dataset, protocol=entry.protocol, metrics=entry.metrics)


def _own_name(name: str | None) -> str | None:
    if name is not None and (not name.strip() or name == "sample" or name in catalogue.names()):
        raise DatasetError(f"A data set of your own cannot be called {name!r}.", setting="Choose another --name.")
    return name


def _first(dataset: Dataset, limit: int | None) -> Dataset:
    """Cut a data set down; a part never goes under the name of the whole."""
    if limit is None or limit >= len(dataset.samples):
        return dataset
    return replace(dataset, name=f"{dataset.name}-first{limit}", samples=dataset.samples[:limit])
