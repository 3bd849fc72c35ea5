"""Reports as one HTML file that opens offline: one run with its images, or the tables of many."""

import base64
import io
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench.errors import DrawingError
from bench.record import Record, Row
from bench.report import figures, render
from bench.report.escape import visible
from bench.report.pictures import Pictures, data_uri, small
from bench.report.table import Column, Table, tables
from bench.stats import from_one

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Rows = Mapping[tuple[str, str], Mapping[str, Row]]  # by image, by the address of the record

THUMBNAIL = 360  # pixels of the long side


def address(record: Record) -> tuple[str, str]:
    """Return what tells a record from every other in a report: its file name, and the set's fingerprint."""
    return record.stem, record.dataset.fingerprint


def of_run(
    record: Record, rows: Mapping[str, Row], pictures: Pictures, *, metric: str | None = None, limit: int = 200
) -> str:
    """Return the page of one run: what was measured on what, the spread of each metric, and its images, worst first.

    The order is that of `metric`, by default the table's first; images that failed come before all. The first `limit`
    images are shown, with `pictures` as thumbnails where there are some. Raises UnknownMetricError if there is no such
    metric.
    """
    [table] = tables([record])
    column = table.column(metric)
    ordered = worst_first(rows.values(), column)
    failures: dict[str, list[str]] = {}
    for failure in record.failures:
        failures.setdefault(failure.id, []).append(f"{failure.stage}: {failure.reason}")
    cards = [
        {
            "id": row.id,
            "failures": failures.get(row.id, ()),
            "values": [(column.name, _number(row.values.get(column.name))) for column in table.columns],
            "thumbnails": [
                (what, data_uri(image))
                for what, files in pictures.items()
                if (image := small(files.get(row.id), THUMBNAIL)) is not None
            ],
        }
        for row in ordered[:limit]
    ]
    return _render(
        title=f"{record.method.name} on {table.title}",
        facts=_facts(record),
        parts=[_part(table, {address(record): rows}, metric)],
        order=f"The worst by {column.name} come first.",
        cards=cards,
        left_out=len(ordered) - len(cards),
    )


def of_tables(found: Sequence[Table], rows: Rows, metric: str | None = None) -> str:
    """Return the page of tables with their figures. Raises UnknownMetricError if a table has no such metric."""
    parts = [_part(table, rows, metric) for table in found]
    return _render(title="Results", facts=[], parts=parts, order="", cards=[], left_out=0)


def _goodness(value: float, direction: str) -> float:
    return value if direction == "up" else -from_one(value) if direction == "one" else -value


def worst_first(rows: Iterable[Row], column: Column) -> list[Row]:
    """Sort rows: failures, then by the column's metric from the worst to the best, then those without a value."""

    def rank(row: Row) -> tuple[bool, bool, float, str]:
        value = row.values.get(column.name)
        badness = 0.0 if value is None else _goodness(value, column.direction)
        return (not row.failures, value is None, badness, row.id)

    return sorted(rows, key=rank)


def drawings(table: Table, rows: Rows, metric: str | None = None) -> dict[str, "Figure"]:
    """Return what can be drawn of a table by what it shows: quality against speed, per-image values."""
    column = table.column(metric)
    values = {
        one.name: {
            entry.method.name: [row.values[one.name] for row in rows[address(entry)].values() if one.name in row.values]
            for entry in table.records
            if address(entry) in rows
        }
        for one in table.columns
    }
    labels = {one.name: one.label for one in table.columns}
    drawn = {}
    if sum(entry.speed is not None for entry in table.records) > 1:
        with suppress(DrawingError):  # none of them has a value
            drawn["quality against speed"] = figures.quality_against_speed(table, column.name)
    with suppress(DrawingError):  # no image has a value
        drawn["values of each image"] = figures.distributions(values, labels, table.title)
    return drawn


def _facts(record: Record) -> list[str]:
    """Say who was scored on what, when and with what."""
    method = record.method
    about = [
        method.paper,
        method.license and f"licence: {method.license}",
        method.revision and f"revision {method.revision}",
    ]
    about += [f"trained on {', '.join(method.trained_on)}"] if method.trained_on else []
    made = ", ".join(f"{name} {value}" for name, value in record.environment.items())
    return [
        "; ".join(part for part in about if part),
        f"Data set fingerprint {record.dataset.fingerprint}.",
        f"{record.created}; {made}." if made else record.created,
    ]


def _part(table: Table, rows: Rows, metric: str | None) -> dict[str, Any]:
    from markupsafe import Markup, escape

    bold = Markup("<strong>{}</strong>").format
    return {
        "title": table.title,
        "headers": render.headings(table),
        "rows": [[method, *texts] for method, texts in render.cells(table, escape, bold)],
        "notes": render.notes(table, visible),
        "figures": [(about, _svg(figure)) for about, figure in drawings(table, rows, metric).items()],
    }


def _number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}".replace("inf", "∞")


def _svg(figure: "Figure") -> str:
    file = io.BytesIO()
    figure.savefig(file, format="svg")
    return f"data:image/svg+xml;base64,{base64.b64encode(file.getvalue()).decode()}"


def _render(**content: Any) -> str:
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    def shown(value: Any) -> Any:  # before it is escaped; what is marked as safe stays
        return visible(value) if type(value) is str else value

    options = {"autoescape": True, "finalize": shown, "undefined": StrictUndefined, "trim_blocks": True}
    environment = Environment(loader=FileSystemLoader(Path(__file__).parent), **options)
    return environment.get_template("page.html").render(content)
