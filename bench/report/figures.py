"""Figures from tables, as matplotlib Figures without global state."""

from typing import TYPE_CHECKING

from bench.record import Record
from bench.report.table import ARROWS, Column, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK, _ACCENT = "#334155", "#0f766e"
# Where a label may stand beside its point, in points; the first place that is free is taken.
_PLACES = (
    ("left", 7, 5),
    ("right", -7, 5),
    ("left", 7, -13),
    ("right", -7, -13),
    ("center", 0, 19),
    ("center", 0, -27),
)


def quality_against_speed(table: Table, metric: str | None = None) -> "Figure":
    """Draw each method's mean of `metric` (default: the table's first) against its seconds for an image.

    Better is always up. Bars are 95 % intervals; the line joins the Pareto front, the methods that none is both faster
    and better than. Methods without a time are named below the plot. Raises ValueError if there is nothing to draw.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    column = _column(table, metric)
    scored = [record for record in table.records if _mean(record, column) is not None]
    timed = [record for record in scored if record.speed]
    if not timed:
        raise ValueError(f"no method has both seconds and {column.name} on {table.title}")

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.add_subplot()
    seconds = [_seconds(record) for record in timed]
    means = [_mean(record, column) for record in timed]
    axes.set_xscale("log")
    axes.errorbar(seconds, means, yerr=_bars(timed, column), fmt="o", color=_INK, ecolor="#cbd5e1", capsize=3, zorder=3)
    front = pareto_front(timed, column)
    points = [_seconds(record) for record in front], [_mean(record, column) for record in front]
    axes.plot(*points, color=_ACCENT, linewidth=1.5, zorder=2)
    axes.plot(*points, "o", color=_ACCENT, zorder=4)
    if column.direction == "down":
        axes.invert_yaxis()
    # Room for the labels, and some width where every method takes the same time.
    room = max(1.5, (max(seconds) / min(seconds)) ** 0.15)
    axes.set_xlim(min(seconds) / room, max(seconds) * room)
    axes.margins(y=0.15)
    axes.grid(color="#e2e8f0", which="major", linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    unit = f" ({column.unit})" if column.unit else ""
    axes.set_ylabel(f"{column.name} {ARROWS[column.direction]}{unit}")
    untimed = [record.method.name for record in scored if not record.speed]
    without = f"\nwithout a time: {', '.join(untimed)}" if untimed else ""
    axes.set_xlabel(f"seconds for an image of {timed[0].speed.megapixels_median:.2g} megapixels{without}")
    axes.set_title(table.title, loc="left", fontsize=11, color=_INK)
    _label(figure, axes, [record.method.name for record in timed], seconds, means)
    return figure


def pareto_front(records: list[Record], column: Column) -> list[Record]:
    """Return the records that no other is both faster and better than, the fastest first; all have speed and a mean."""
    front: list[Record] = []
    for record in sorted(records, key=lambda record: (_seconds(record), column.rank(record.metrics[column.name]))):
        if not front or column.rank(record.metrics[column.name]) < column.rank(front[-1].metrics[column.name]):
            front.append(record)
    return front


def _column(table: Table, metric: str | None) -> Column:
    if not table.columns:
        raise ValueError(f"{table.title} has no metric")
    if metric is None:
        return table.columns[0]
    found = [column for column in table.columns if column.name == metric]
    if not found:
        raise ValueError(f"{table.title} has no {metric}; it has {', '.join(column.name for column in table.columns)}")
    return found[0]


def _mean(record: Record, column: Column) -> float | None:
    summary = record.metrics.get(column.name)
    return summary.mean if summary else None


def _seconds(record: Record) -> float:
    return max(record.speed.seconds_median, 1e-6)  # the axis is logarithmic


def _bars(records: list[Record], column: Column) -> list[list[float]]:
    """Return how far the intervals reach below and above the means; a single image has none."""
    summaries = [record.metrics[column.name] for record in records]
    below = [max(0.0, s.mean - s.low) if s.low is not None else 0.0 for s in summaries]
    above = [max(0.0, s.high - s.mean) if s.high is not None else 0.0 for s in summaries]
    return [below, above]


def _label(figure: "Figure", axes: "Axes", names: list[str], seconds: list[float], means: list[float]) -> None:
    """Write each name beside its point where it covers no other name."""
    figure.draw_without_rendering()
    style = {"textcoords": "offset points", "fontsize": 9, "color": _INK, "zorder": 5}
    style["bbox"] = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1}
    taken = []
    for name, x, y in zip(names, seconds, means, strict=True):
        for align, right, up in _PLACES:
            text = axes.annotate(name, (x, y), (right, up), ha=align, **style)
            box = text.get_window_extent()
            free = not any(box.overlaps(other) for other in taken)
            if free or (align, right, up) == _PLACES[-1]:
                break
            text.remove()
        taken.append(box)
