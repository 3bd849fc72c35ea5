"""Rank the methods of a table by Borda count: every metric is a voter who puts the methods in order."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import inf

from bench.report.table import Table

EXPLANATION = """
Each metric is a voter. It gives a method one point for every other method shown that it finds worse, and half a point
for every one it finds equal; points are added up, and **100 %** means first by every metric. This is the Borda count.

- It needs no weights between decibels, SSIM and NIQE, whose scales have nothing in common, and one metric on which a
  method excels by far cannot make up for all the others. For the same reason it does not see *how far* two methods are
  apart: look at the intervals, and at the comparison image by image.
- Where there are clear images, only the metrics that compare with them vote; without them those that judge the picture
  alone do, which reward strong contrast. `fade_refit` abstains where `fade` votes, its original. Choose other
  voters under *Metrics*.
- A method without a value on every image gets no point from that metric: leaving out what one is bad at does not help.
- Points are counted among the methods shown, so a filter can change an order, as in any count of this kind.
"""


@dataclass(frozen=True)
class Standing:
    """A method's place, 1 for the best (equal points share one), its Borda points and their share of all possible."""

    place: int
    points: float
    share: float


def voters(table: Table) -> list[str]:
    """Return the metrics that decide by default.

    These are the ones that compare with a clear image, or where there is none those that need none; `fade_refit` only
    where there is no `fade`, which it stands in for.
    """
    names = [column.name for column in table.columns if column.reference]
    names = names or [column.name for column in table.columns]
    return [name for name in names if name != "fade_refit" or "fade" not in names]


def borda(table: Table, metrics: Sequence[str] | None = None) -> list[Standing]:
    """Return the standing of each of the table's records, in their order, by `metrics` (default: `voters`).

    From each metric a method gets a point for every other method that it is better than, and half a point for every
    equal one; one that lacks a value for an image gets none, and loses against all that have them. Means are compared,
    infinite PSNR above any other. Raises UnknownMetricError if the table has no such metric.
    Source: de Borda 1781, Mémoire sur les élections au scrutin, with half points for ties.
    """
    metrics = voters(table) if metrics is None else metrics
    points = [0.0] * len(table.records)
    for column in map(table.column, metrics):
        ranks = []
        for record in table.records:
            summary = record.metrics.get(column.name)
            ranks.append(column.rank(summary) if summary and column.complete(summary) else None)
        for place, rank in enumerate(ranks):
            others = [inf if other is None else other for at, other in enumerate(ranks) if at != place]
            if rank is not None:
                points[place] += sum(1.0 if rank < other else 0.5 * (rank == other) for other in others)
    possible = len(metrics) * (len(points) - 1)
    return [
        Standing(1 + sum(other > own for other in points), own, own / possible if possible else 1.0) for own in points
    ]
