"""Figures from tables and per-image values, as matplotlib Figures without global state."""

from collections.abc import Iterable, Mapping, Sequence
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from bench.errors import DrawingError
from bench.record import Summary
from bench.report.escape import visible
from bench.report.table import ARROWS, Column, Table

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from PIL.Image import Image

_INK, _ACCENT, _FAINT, _GRID = "#334155", "#0f766e", "#cbd5e1", "#e2e8f0"
_PLAIN: dict[str, Any] = {"parse_math": False}  # in what records say, a dollar is a dollar
_TITLE = {"loc": "left", "fontsize": 11, "color": _INK, **_PLAIN}
_LONGEST = 60  # letters of a name, so that it leaves room for the figure
# Where a label may stand beside its point, in points; the first place that is free is taken.
_PLACES = (
    ("left", 7, 5),
    ("right", -7, 5),
    ("left", 7, -13),
    ("right", -7, -13),
    ("center", 0, 19),
    ("center", 0, -27),
)


class Point(NamedTuple):
    """A method that was timed and scored: its median seconds for an image of so many megapixels, and its mean."""

    method: str
    seconds: float  # at least 1e-6, as the axis is logarithmic
    megapixels: float
    mean: float
    summary: Summary


def quality_against_speed(table: Table, metric: str | None = None) -> "Figure":
    """Draw each method's mean of `metric` (default: the table's first) against its seconds for an image.

    Better is always up. Bars are 95 % intervals; the line joins the Pareto front, the methods that none is both faster
    and better than. Methods without a time are named below the plot. Raises DrawingError if there is nothing to draw.
    """
    column = table.column(metric)
    timed, untimed = points(table, column)
    if not timed:
        raise DrawingError(f"No method has both seconds and {column.name} on {table.title}.")

    figure = _figure(7, 4.5)
    axes = figure.add_subplot()
    seconds, means = [point.seconds for point in timed], [point.mean for point in timed]
    axes.set_xscale("log")
    axes.errorbar(seconds, means, yerr=_bars(timed), fmt="o", color=_INK, ecolor=_FAINT, capsize=3, zorder=3)
    front = pareto_front(timed, column)
    line = [point.seconds for point in front], [point.mean for point in front]
    axes.plot(*line, color=_ACCENT, linewidth=1.5, zorder=2)
    axes.plot(*line, "o", color=_ACCENT, zorder=4)
    if column.direction == "down":
        axes.invert_yaxis()
    # Room for the labels, and some width where every method takes the same time.
    room = max(1.5, (max(seconds) / min(seconds)) ** 0.15)
    axes.set_xlim(min(seconds) / room, max(seconds) * room)
    axes.margins(y=0.15)
    _plain(axes)
    axes.set_ylabel(_short(column.label), **_PLAIN)
    without = f"\nwithout a time: {', '.join(map(_short, untimed))}" if untimed else ""
    axes.set_xlabel(f"seconds for an image of {timed[0].megapixels:.2g} megapixels{without}", **_PLAIN)
    axes.set_title(_short(table.title), **_TITLE)
    _label(figure, axes, [point.method for point in timed], seconds, means)
    return figure


def points(table: Table, column: Column) -> tuple[list[Point], list[str]]:
    """Return the methods of a table that have seconds and a mean, and the names of those that have a mean alone."""
    timed, untimed = [], []
    for record in table.records:
        summary, speed = record.metrics.get(column.name), record.speed
        if summary is None or summary.mean is None:
            continue
        if speed is None:
            untimed.append(record.method.name)
        else:
            seconds = max(speed.seconds_median, 1e-6)
            timed.append(Point(record.method.name, seconds, speed.megapixels_median, summary.mean, summary))
    return timed, untimed


def pareto_front(timed: Iterable[Point], column: Column) -> list[Point]:
    """Return the methods that no other is both faster and better than, the fastest first."""
    front: list[Point] = []
    for point in sorted(timed, key=lambda point: (point.seconds, column.rank(point.summary))):
        if not front or column.rank(point.summary) < column.rank(front[-1].summary):
            front.append(point)
    return front


def scatter(
    before: Mapping[str, float], after: Mapping[str, float], names: tuple[str, str], metric: str, direction: str
) -> "Figure":
    """Draw each image's value by one method against that by another; the three furthest apart are named.

    Above the diagonal the second value is higher. Images with an infinite value, or with one value only, are left out.
    Raises DrawingError if none is left.
    """
    both = [id_ for id_ in before if id_ in after and np.isfinite([before[id_], after[id_]]).all()]
    if not both:
        raise DrawingError(f"No image has a finite {metric} by both {names[0]} and {names[1]}.")
    x, y = (np.array([values[id_] for id_ in both]) for values in (before, after))
    better = y > x if direction == "up" else y < x
    figure = _figure(5.4, 5.4)
    axes = figure.add_subplot()
    axes.axline((x[0], x[0]), slope=1, color=_FAINT, linewidth=1.2, zorder=1)
    axes.scatter(x[~better], y[~better], s=22, color=_INK, alpha=0.75, linewidths=0, zorder=3)
    axes.scatter(x[better], y[better], s=22, color=_ACCENT, alpha=0.75, linewidths=0, zorder=3)
    low, high = min(x.min(), y.min()), max(x.max(), y.max())
    room = 0.08 * (high - low) or 1
    axes.set(xlim=(low - room, high + room), ylim=(low - room, high + room), aspect="equal")
    _plain(axes)
    a, b, metric = (_short(name) for name in (*names, metric))
    axes.set_xlabel(f"{metric} {ARROWS[direction]} of {a}", **_PLAIN)
    axes.set_ylabel(f"{metric} {ARROWS[direction]} of {b}", **_PLAIN)
    axes.set_title(f"{b} is better on {better.sum()} of {len(both)} images", **_TITLE)
    furthest = [place for place in np.argsort(-np.abs(y - x), kind="stable")[:3] if x[place] != y[place]]
    _label(figure, axes, [both[place] for place in furthest], x[furthest], y[furthest], around=np.column_stack([x, y]))
    return figure


def distributions(
    values: Mapping[str, Mapping[str, Sequence[float]]], labels: Mapping[str, str], title: str = ""
) -> "Figure":
    """Draw per-image values, {metric: {method: values}}: a panel for each metric, a row of dots for each method.

    The box holds the middle half, the line is the median. Infinite values are counted beside the row. `labels` are the
    titles of the panels. Raises DrawingError if there is no finite value.
    """
    shown = {metric: rows for metric, rows in values.items() if any(np.isfinite(row).any() for row in rows.values())}
    if not shown:
        raise DrawingError(f"There are no values to draw{title and f' of {title}'}.")
    methods = list(dict.fromkeys(method for rows in shown.values() for method in rows))
    across = min(3, len(shown))
    down = ceil(len(shown) / across)
    names = [_short(method) for method in methods]
    figure = _figure(3.1 * across + 0.09 * max(map(len, names)), down * (0.85 + 0.34 * len(methods)))
    grid = figure.subplots(down, across, sharey=True, squeeze=False)
    for axes in grid.flat[len(shown) :]:
        axes.remove()
    for axes, (metric, rows) in zip(grid.flat, shown.items(), strict=False):
        for place, method in enumerate(methods):
            row = np.asarray(rows.get(method, ()), dtype=np.float64)
            _dots(axes, row[np.isfinite(row)], place)
            if infinite := np.isinf(row).sum():
                axes.annotate(f"{infinite} × ∞", (1, place), (-2, 6), ("axes fraction", "data"), "offset points",
                              ha="right", fontsize=8, color=_INK)  # fmt: skip
        _plain(axes)
        axes.set_title(_short(labels[metric]), **_TITLE | {"fontsize": 10})
        axes.set_yticks(range(len(methods)), names, **_PLAIN)
        axes.set_ylim(len(methods) - 0.4, -0.6)  # the first on top
        axes.tick_params(length=0)
    if title:
        figure.suptitle(_short(title), x=0.01, ha="left", fontsize=11, color=_INK, **_PLAIN)
    return figure


def contact_sheet(rows: Sequence[tuple[str, Sequence["Image | None"]]], headers: Sequence[str]) -> "Figure":
    """Set pictures in rows, each with a caption above it, under the `headers` of the columns; None stays empty."""
    shapes = [next((image.size for image in images if image), (3, 2)) for _, images in rows]
    heights = [2.6 * height / width for width, height in shapes]
    figure = _figure(2.6 * len(headers), sum(heights) + 0.3 * len(rows) + 0.3)
    parts = figure.subfigures(len(rows), 1, height_ratios=[height + 0.3 for height in heights], squeeze=False)
    for part, (caption, images) in zip(parts.flat, rows, strict=True):
        part.suptitle(visible(caption), x=0.01, ha="left", fontsize=9, color=_INK, **_PLAIN)
        for axes, image, header in zip(
            part.subplots(1, len(headers), squeeze=False).flat, images, headers, strict=True
        ):
            axes.axis("off")
            if image is not None:
                axes.imshow(image)
            axes.set_title(_short(header), fontsize=8, color=_INK, pad=2, **_PLAIN)
    return figure


def _figure(width: float, height: float) -> "Figure":
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def _plain(axes: "Axes") -> None:
    axes.grid(color=_GRID, which="major", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def _dots(axes: "Axes", values: np.ndarray, place: int) -> None:
    """Draw one row: a dot for each value, moved up or down at random lest they hide each other, and a box."""
    if not values.size:
        return
    moved = place + np.random.default_rng(0).uniform(-0.22, 0.22, values.size)
    axes.scatter(
        values, moved, s=14, color=_ACCENT, alpha=max(0.15, min(0.8, 30 / values.size)), linewidths=0, zorder=3
    )
    box = {"color": _INK, "linewidth": 1}
    axes.boxplot(
        [values], positions=[place], orientation="horizontal", widths=0.6, showfliers=False, showcaps=False,
        whis=(0, 100), boxprops=box, whiskerprops=box | {"color": _FAINT}, medianprops=box | {"linewidth": 2},
        manage_ticks=False,
    )  # fmt: skip


def _short(text: str) -> str:
    line = visible(text)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 1]}…"


def _bars(timed: Iterable[Point]) -> list[list[float]]:
    """Return how far the intervals reach below and above the means; a single image has none."""
    bounds = [(point.mean, point.summary.low, point.summary.high) for point in timed]
    below = [0.0 if low is None else max(0.0, mean - low) for mean, low, _ in bounds]
    above = [0.0 if high is None else max(0.0, high - mean) for mean, _, high in bounds]
    return [below, above]


def _label(
    figure: "Figure", axes: "Axes", names: Sequence[str], xs: Iterable[float], ys: Iterable[float], around: Any = ()
) -> None:
    """Write each name beside its point where it covers no other name, and no point of `around`."""
    from matplotlib.transforms import Bbox

    figure.draw_without_rendering()
    style = {"textcoords": "offset points", "fontsize": 9, "color": _INK, "zorder": 5, **_PLAIN}
    style["bbox"] = {"facecolor": "white", "alpha": 0.7, "edgecolor": "none", "pad": 1}
    dots = axes.transData.transform(around) if len(around) else ()
    taken = [Bbox.from_extents(x - 4, y - 4, x + 4, y + 4) for x, y in dots]
    for name, x, y in zip(names, xs, ys, strict=True):
        for align, right, up in _PLACES:
            text = axes.annotate(_short(name), (x, y), (right, up), ha=align, **style)
            box = text.get_window_extent()
            inside = axes.bbox.x0 <= box.x0 and box.x1 <= axes.bbox.x1
            free = inside and not any(box.overlaps(other) for other in taken)
            if free or (align, right, up) == _PLACES[-1]:
                break
            text.remove()
        taken.append(box)
