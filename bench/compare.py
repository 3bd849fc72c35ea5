"""Two methods on the same images: how far apart they are, how sure that is, and whether one is a step back."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from bench.errors import RecordError
from bench.record import Record, Row, read, read_values, select
from bench.stats import bootstrap_mean, from_one, holm, signed_rank

ALPHA = 0.05


@dataclass(frozen=True)
class Scored:
    """A record with its per-image values; a ratio counts by how far it is from 1."""

    record: Record
    rows: Mapping[str, Row]

    def values(self, metric: str) -> dict[str, float]:
        """Return the metric's values by image, of those images that have one."""
        values = {id_: row.values.get(metric, math.nan) for id_, row in self.rows.items()}
        if self.record.metrics[metric].direction == "one":
            values = {id_: from_one(value) for id_, value in values.items() if not math.isnan(value)}
        return {id_: value for id_, value in values.items() if not math.isnan(value)}


@dataclass(frozen=True)
class Difference:
    """One metric of B against A on the images that both have a value for.

    `differences` are B − A by image. `mean_a`, `mean_b`, the `mean` difference and its 95 % interval, `low` to `high`
    (paired bootstrap), leave out the `infinite` images, where a value is infinite, and are None where too few are left.
    `wins` counts the images where B is better, `ties` those where both are equal, `lost` those where A has a value and
    B has none. `p` and `effect` are those of the Wilcoxon signed-rank test over all images, p Holm-corrected over the
    metrics compared.
    """

    metric: str
    direction: Literal["up", "down"]
    unit: str
    differences: Mapping[str, float]
    mean_a: float | None
    mean_b: float | None
    mean: float | None
    low: float | None
    high: float | None
    infinite: int
    wins: int
    ties: int
    lost: int
    p: float
    effect: float

    @property
    def verdict(self) -> Literal["better", "worse", "no difference shown"]:
        """Say what is shown of B: p < 0.05, and the interval of the mean difference lies on the same side of zero."""
        agrees = self.low is None or self.high is None or min(self.low * self.effect, self.high * self.effect) > 0
        if self.p >= ALPHA or not agrees:
            return "no difference shown"
        return "better" if (self.effect > 0) == (self.direction == "up") else "worse"

    def regression(self, tolerance: float | None = None) -> str | None:
        """Say why B is a step back from A, or None if it is not.

        It is one if the verdict is "worse"; with a `tolerance`, in the metric's unit, if instead the mean is worse by
        more than that, shown or not, infinite values included; and always if B has no value where A has one.
        """
        if self.lost:
            return f"{self.metric} has no value on {self.lost} of the images where there was one"
        if not self.differences or (tolerance is None and self.verdict != "worse"):
            return None
        with np.errstate(invalid="ignore"):  # infinite both ways has no mean, and is no regression
            drop = np.mean(list(self.differences.values())) * (-1 if self.direction == "up" else 1)
        if tolerance is not None and not drop > tolerance:
            return None
        beyond = "" if tolerance is None else f", more than {tolerance:g}"
        return f"{self.metric} is worse by {f'{drop:.4g} {self.unit}'.rstrip()}{beyond}"


def find(which: str, results: Path, dataset: str | None = None, protocol: str | None = None) -> list[Path]:
    """Return the paths of the records that `which` means: a file, or a method's name among the records in `results`.

    Raises RecordError if there is none.
    """
    if which.endswith(".json"):
        return [Path(which)]
    records, broken = select(results, dataset, protocol)
    found = [path for path, record in records.items() if record.method.name == which]
    if not found:
        methods = ", ".join(sorted({record.method.name for record in records.values()}))
        unread = f"Not all files can be read: {broken[0]}" if broken else ""
        raise RecordError(f"No record is of {which!r}.", f"There are records of {methods}.", setting=unread)
    return found


def load(path: Path) -> Scored:
    """Read a record and the values beside it. Raises RecordError if either cannot be trusted."""
    record = read(path)
    return Scored(record, read_values(path, record))


def pairs(a: Sequence[Scored], b: Sequence[Scored]) -> list[tuple[Scored, Scored]]:
    """Pair the records of two methods by data set and protocol.

    Raises RecordError if none fit together, or if two that would are of different bytes.
    """
    if len(a) == len(b) == 1:
        check(a[0].record, b[0].record)
        return [(a[0], b[0])]
    theirs = {(one.record.dataset.name, one.record.protocol): one for one in b}
    found = [
        (one, other) for one in a if (other := theirs.get((one.record.dataset.name, one.record.protocol))) is not None
    ]
    if not found:
        there = "; ".join(f"{one.record.dataset.name}, {one.record.protocol}" for one in (*a, *b))
        raise RecordError(f"The two methods have no data set under one protocol in common: {there}.")
    for one, other in found:
        check(one.record, other.record)
    return found


def check(a: Record, b: Record) -> None:
    """Raise RecordError if numbers of `a` and `b` must not be compared."""
    if a.protocol != b.protocol:
        raise RecordError(f"{a.protocol} and {b.protocol} are different protocols.", "Score both under one.")
    if a.dataset.fingerprint != b.dataset.fingerprint:
        one, other = (f"{info.name} ({info.fingerprint[:8]})" for info in (a.dataset, b.dataset))
        raise RecordError(f"{one} and {other} hold different images.", "Score both on one.")


def compare(a: Scored, b: Scored, metrics: Sequence[str] | None = None) -> list[Difference]:
    """Compare B with A by `metrics`, or by all that both have.

    Raises RecordError if the protocols, the images or the metrics' definitions differ, or if there is no common metric.
    """
    check(a.record, b.record)
    common = [name for name in a.record.metrics if name in b.record.metrics]
    if not common:
        raise RecordError(f"{a.record.method.name} and {b.record.method.name} have no metric in common.")
    for name in metrics or ():
        if name not in common:
            raise RecordError("is not in both records.", f"Both have {', '.join(common)}.", subject=name)
    found = [_difference(a, b, name) for name in metrics or common]
    corrected = holm([difference.p for difference in found])
    return [replace(difference, p=p) for difference, p in zip(found, corrected, strict=True)]


def _difference(a: Scored, b: Scored, name: str) -> Difference:
    summaries = [one.record.metrics[name] for one in (a, b)]
    made_with = [
        {key: value for key, value in one.record.environment.items() if key.startswith(f"{name}_")} for one in (a, b)
    ]
    if made_with[0] != made_with[1] or len({(s.direction, s.unit, s.reference) for s in summaries}) > 1:
        raise RecordError("was not computed alike in both records.", "Leave it out, or score both again.", subject=name)
    before, after = a.values(name), b.values(name)
    both = [id_ for id_ in before if id_ in after]
    values = np.array([[before[id_], after[id_]] for id_ in both], dtype=np.float64).reshape(-1, 2)
    same = values[:, 0] == values[:, 1]  # two infinite values are equal, though their difference is no number
    with np.errstate(invalid="ignore"):
        differences = np.where(same, 0.0, values[:, 1] - values[:, 0])
    finite = values[np.isfinite(values).all(axis=1)]
    means = finite.mean(axis=0).tolist() if len(finite) else [None, None]
    steps = finite[:, 1] - finite[:, 0]
    low, high = bootstrap_mean(steps) if len(steps) > 1 else (None, None)
    p, effect = signed_rank(differences)
    up = summaries[0].direction == "up"
    return Difference(
        metric=name,
        direction="up" if up else "down",
        unit="|ln|" if summaries[0].direction == "one" else summaries[0].unit,
        differences=dict(zip(both, differences.tolist(), strict=True)),
        mean_a=means[0],
        mean_b=means[1],
        mean=float(steps.mean()) if len(steps) else None,
        low=low,
        high=high,
        infinite=len(values) - len(finite),
        wins=int((differences > 0).sum() if up else (differences < 0).sum()),
        ties=int((differences == 0).sum()),
        lost=len(before) - len(both),
        p=p,
        effect=effect,
    )
