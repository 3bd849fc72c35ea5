"""The catalogue: what is known of each data set, where it comes from, and which training sets overlap with it.

Its entries are in `catalogue.toml`. A fact that could not be found is left unknown, never guessed; a copy on the Hub is
somebody's, not the authors'.
"""

import json
import re
import tomllib
from collections.abc import Iterable
from functools import cache
from pathlib import Path
from typing import Any

from pydantic import ConfigDict, TypeAdapter
from pydantic.dataclasses import dataclass

from bench.datasets.files import PLAIN, Layout
from bench.errors import UnknownDatasetError
from dehaze.registry import Registry

_STRICT = ConfigDict(extra="forbid")


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Mirror:
    """An unofficial copy on the Hub: the repository, and what tells the files of one set from others in it."""

    repo: str
    config: str | None = None
    split: str | None = None
    part: str = ""  # name of the set in the files' paths, where a repository holds several


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Entry:
    """One data set.

    `samples` and `pairs` are None where the count is not known. `folders` are those that may hold the set under a data
    root. `numbers` picks the images whose names begin with one of them. `families` are names under which training sets
    are known that share scenes or a source with this set. `fingerprint` is that of the original bytes, where known.
    `suite` is the name under which several sets are scored at once. `protocol` is the one that suits the set, and
    `metrics` are scored by default beside the others.
    """

    name: str
    about: str
    license: str
    address: str
    samples: int | None = None
    pairs: int | None = None
    split: str
    pairing: str
    folders: tuple[str, ...]
    layout: Layout = PLAIN
    mirror: Mirror | None = None
    numbers: tuple[int, ...] = ()
    families: tuple[str, ...] = ()
    fingerprint: str | None = None
    suite: str | None = None
    protocol: str = "native-v1"
    metrics: tuple[str, ...] = ()

    @property
    def summary(self) -> str:
        """Say in one line what the set is."""
        count = f"{self.samples or 'unknown number of'} images, {self.pairs if self.pairs is not None else '?'} pairs"
        source = f"{self.address}; unofficial copy: {self.mirror.repo}" if self.mirror else self.address
        return f"{self.about} ({count}; {self.split}; licence: {self.license}; from {source})"


_FILE = Path(__file__).with_suffix(".toml")
_ENTRY = TypeAdapter(Entry)


def read_entries(text: str) -> dict[str, Entry]:
    """Read entries by name from TOML. Raises ValueError that says which field is wrong."""
    tables: dict[str, dict[str, Any]] = tomllib.loads(text)
    entries = {}
    for name, facts in tables.items():
        if "part_of" in facts:
            not_shared = {"fingerprint", "suite"} | ({"mirror"} if "numbers" not in facts else set())
            whole = {field: fact for field, fact in tables[facts["part_of"]].items() if field not in not_shared}
            facts = whole | {field: fact for field, fact in facts.items() if field != "part_of"}
        # By JSON, whose arrays are tuples in strict mode too.
        entries[name] = _ENTRY.validate_json(json.dumps({"name": name} | facts), strict=True)
    return entries


@cache
def _entries() -> dict[str, Entry]:
    return read_entries(_FILE.read_text(encoding="utf-8"))


@cache
def _catalogue() -> Registry[Entry]:
    found: Registry[Entry] = Registry("data set", UnknownDatasetError)
    for name, entry in _entries().items():
        found.register(name)(entry)
    return found


@cache
def suites() -> dict[str, tuple[str, ...]]:
    """Return the names of data sets that are scored together, by the name of the suite."""
    found: dict[str, tuple[str, ...]] = {}
    for entry in _entries().values():
        if entry.suite:
            found[entry.suite] = (*found.get(entry.suite, ()), entry.name)
    return found


def names() -> list[str]:
    """List the names of the catalogue."""
    return _catalogue().names()


def get(name: str) -> Entry:
    """Return the entry called `name`. Raises DatasetError that suggests the nearest names."""
    return _catalogue().get(name)


def contaminated(entry: Entry | str, trained_on: Iterable[str]) -> list[str]:
    """Return the names in `trained_on`, as a model's card states them, that overlap with a data set.

    They overlap if they hold the name of one of its families, however it is written ("RESIDE (ITS)", "NH-HAZE train",
    "org/NH-HAZE"): a scene or its source may have been seen in training. A set outside the catalogue, given by name,
    overlaps with itself alone. What a card does not tell cannot be found.
    """
    if isinstance(entry, str):
        whole = re.sub(r"-first\d+$", "", entry)
        own = re.sub(r"^(folder:|hub:[^/]*/)|[@:].*$", "", whole)
        families = (*(get(whole).families if whole in names() else ()), own)
    else:
        families = (*entry.families, entry.name)
    return [name for name in trained_on if any(mentions(name, family) for family in families)]


def mentions(text: str, name: str) -> bool:
    """Tell whether `text` holds `name` as whole words, however its parts are joined: O-HAZE, O_Haze, ohaze."""
    wanted = "".join(_words(name))
    words = _words(text)
    runs = (words[start:stop] for start in range(len(words)) for stop in range(start + 1, len(words) + 1))
    return any("".join(run) == wanted for run in runs)


def _words(text: str) -> list[str]:
    return re.findall(r"[a-z0-9]+", text.lower())
