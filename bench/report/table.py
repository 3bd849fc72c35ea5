"""Tables from result records: one for each data set under each protocol, the best method first.

What was measured under different protocols, or on sets of different bytes, never shares a table.
"""

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from math import inf

from bench.errors import UnknownMetricError
from bench.record import DatasetInfo, Record, Summary
from bench.stats import from_one

ARROWS = {"up": "↑", "down": "↓", "one": "→ 1"}


@dataclass(frozen=True)
class Column:
    """A metric of a table: which way is better, and how many images a complete result covers."""

    name: str
    direction: str
    unit: str
    reference: bool
    images: int

    @property
    def label(self) -> str:
        """Return the name, the direction and the unit."""
        return f"{self.name} {ARROWS[self.direction]}" + (f" ({self.unit})" if self.unit else "")

    def rank(self, summary: Summary | None) -> float:
        """Return a number that is smaller the better the summary is; without a value it is infinite."""
        if summary is None or not (summary.count or summary.infinite):
            return inf
        value = inf if summary.mean is None else summary.mean
        return -value if self.direction == "up" else from_one(value) if self.direction == "one" else value

    def complete(self, summary: Summary) -> bool:
        """Tell whether the summary covers every image; a mean over fewer is never called the best."""
        return summary.count + summary.infinite == self.images


@dataclass(frozen=True)
class Table:
    """The records of one data set under one protocol, the best by its first metric first."""

    dataset: DatasetInfo
    protocol: str
    columns: tuple[Column, ...]
    records: tuple[Record, ...]

    @property
    def title(self) -> str:
        """Name the data set and the protocol."""
        return f"{self.dataset.name}, {self.protocol}"

    @property
    def contaminated(self) -> dict[str, tuple[str, ...]]:
        """Return the training sets that overlap this set, by method; methods without are left out."""
        return {entry.method.name: entry.contaminated for entry in self.records if entry.contaminated}

    @property
    def unstated(self) -> list[str]:
        """List the methods whose training data nobody checked against this set; one without parameters has none."""
        return [
            entry.method.name for entry in self.records if entry.contaminated is None and entry.method.parameters != 0
        ]

    def column(self, metric: str | None = None) -> Column:
        """Return the column of `metric`, or the first. Raises UnknownMetricError if there is none."""
        for column in self.columns:
            if metric in (None, column.name):
                return column
        there = ", ".join(column.name for column in self.columns)
        raise UnknownMetricError(f"has no {metric or 'metric'}.", there and f"It has {there}.", subject=self.title)

    def best(self, column: Column) -> set[str]:
        """Return the methods with the best mean in a column (several if equal); none where nothing is compared."""
        ranks = {
            entry.method.name: column.rank(summary)
            for entry in self.records
            if (summary := entry.metrics.get(column.name)) and column.complete(summary)
        }
        if len(ranks) < 2:
            return set()
        return {name for name, rank in ranks.items() if rank == min(ranks.values()) and rank != inf}

    def grid(self) -> tuple[list[str], list[list[str | float | None]]]:
        """Return headers and rows of plain values, for a table that sorts: means, seconds, megapixels, parameters."""
        headers = ["method", *(f"{column.name} {ARROWS[column.direction]}" for column in self.columns)]
        rows = []
        for entry in self.records:
            summaries = [entry.metrics.get(column.name) for column in self.columns]
            speed = entry.speed
            rows.append(
                [
                    entry.method.name,
                    *(summary.mean if summary else None for summary in summaries),
                    speed.seconds_median if speed else None,
                    speed.megapixels_median if speed else None,
                    entry.method.parameters,
                ]
            )
        return [*headers, "seconds", "megapixels", "parameters"], rows


def marked(record: Record) -> str:
    """Return the name of the record's method, with a dagger if training sets of its overlap the data set."""
    return f"{record.method.name} †" if record.contaminated else record.method.name


def tables(records: Iterable[Record]) -> list[Table]:
    """Group records into tables, sorted by data set and protocol."""
    groups = defaultdict(list)
    for entry in records:
        info = entry.dataset
        groups[info.name, entry.protocol, info.fingerprint, info.samples, info.pairs].append(entry)
    return [_table(group) for _, group in sorted(groups.items())]


def _table(records: list[Record]) -> Table:
    dataset = records[0].dataset
    columns = {}
    for entry in records:
        for name, summary in entry.metrics.items():
            images = dataset.pairs if summary.reference else dataset.samples
            columns.setdefault(name, Column(name, summary.direction, summary.unit, summary.reference, images))
    # Comparison with the truth comes first where there is any.
    ordered = sorted(columns.values(), key=lambda column: not column.reference)

    def rank(entry: Record) -> tuple[float, str]:
        return (ordered[0].rank(entry.metrics.get(ordered[0].name)) if ordered else 0, entry.method.name)

    return Table(dataset, records[0].protocol, tuple(ordered), tuple(sorted(records, key=rank)))
