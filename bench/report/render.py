"""A table as text: Markdown, LaTeX, CSV, JSON."""

import csv
import io
import json
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict
from enum import StrEnum
from math import floor, log10

from bench.record import Record, Summary
from bench.report.escape import csv_cell, json_text, latex_text, markdown_text, visible
from bench.report.table import Column, Table, marked

Mark = Callable[[str], str]  # makes text safe for where it stands, or bold


def markdown(tables: Sequence[Table]) -> str:
    """Render tables as Markdown: mean and interval, the best in bold."""
    return "\n\n".join(_markdown(table, title(table, tables)) for table in tables)


def latex(tables: Sequence[Table]) -> str:
    """Render tables as LaTeX tabulars for the package booktabs: mean and interval, the best in bold."""
    return "\n\n".join(_latex(table, title(table, tables)) for table in tables)


def as_csv(tables: Sequence[Table]) -> str:
    """Render tables as one CSV file: a row for each method, data set and protocol, five columns for each metric."""
    metrics = list(dict.fromkeys(column.name for table in tables for column in table.columns))
    parts = ("", "_low", "_high", "_count", "_infinite")
    about = ["dataset", "fingerprint", "protocol", "method", "source", "images", "pairs", "failures", "contaminated"]
    speed = ["seconds", "megapixels", "device", "parameters"]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(map(csv_cell, [*about, *(f"{name}{part}" for name in metrics for part in parts), *speed]))
    for table in tables:
        for record in table.records:
            row = [table.dataset.name, table.dataset.fingerprint, table.protocol, record.method.name]
            row += [record.method.source, table.dataset.samples, table.dataset.pairs, len(record.failures)]
            row.append("unknown" if record.contaminated is None else "; ".join(record.contaminated))
            for name in metrics:
                summary = record.metrics.get(name)
                numbers = summary and [summary.mean, summary.low, summary.high, summary.count, summary.infinite]
                row += numbers or [None] * len(parts)
            if record.speed:
                row += [record.speed.seconds_median, record.speed.megapixels_median, record.speed.device]
            else:
                row += [None] * 3
            writer.writerow(map(csv_cell, [*row, record.method.parameters]))
    return text.getvalue().rstrip("\n")


def as_json(tables: Sequence[Table]) -> str:
    """Render tables as JSON: what the records hold, grouped, ranked and with the best marked."""
    return json_text(json.dumps([_plain(table) for table in tables], indent=2, ensure_ascii=False))


class Format(StrEnum):
    """What tables are written as; HTML is made by `page`, the others by FORMATS."""

    MD = "md"
    LATEX = "latex"
    CSV = "csv"
    JSON = "json"
    HTML = "html"


FORMATS: dict[Format, Callable[[Sequence[Table]], str]] = {
    Format.MD: markdown,
    Format.LATEX: latex,
    Format.CSV: as_csv,
    Format.JSON: as_json,
}


def _plain(table: Table) -> dict:
    best = {column.name: table.best(column) for column in table.columns}
    rows = []
    for record in table.records:
        scores = {
            name: asdict(summary) | {"best": record.method.name in best[name]}
            for name, summary in record.metrics.items()
        }
        rows.append(
            {
                "method": asdict(record.method),
                "metrics": scores,
                "speed": asdict(record.speed) if record.speed else None,
                "failures": len(record.failures),
                "contaminated": record.contaminated,
                "created": record.created,
            }
        )
    return {"dataset": asdict(table.dataset), "protocol": table.protocol, "rows": rows}


def title(table: Table, tables: Sequence[Table]) -> str:
    """Name a table; where two have the same name, by the bytes they were measured on too."""
    if sum(other.title == table.title for other in tables) > 1:
        return f"{table.title} (set {table.dataset.fingerprint[:8]})"
    return table.title


def _markdown(table: Table, name: str) -> str:
    headers = [markdown_text(heading) for heading in headings(table)]
    lines = [f"### {markdown_text(name)}", "", table_row(headers)]
    lines.append(table_row(["---"] + ["---:"] * (len(headers) - 1)))
    for method, row in cells(table, str, lambda text: f"**{text}**"):
        lines.append(table_row([markdown_text(method), *row]))
    lines += ["", *notes(table, markdown_text)]
    return "\n".join(lines)


def table_row(cells: Sequence[str]) -> str:
    """Return a row of a table in Markdown."""
    return f"| {' | '.join(cells)} |"


def _latex(table: Table, name: str) -> str:
    headers = headings(table)
    lines = [f"% {visible(line)}" for line in (name, *notes(table, visible))]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(headers) - 1)}}}", r"\toprule"]
    lines += [" & ".join(map(latex_text, headers)) + r" \\", r"\midrule"]
    for method, row in cells(table, latex_text, lambda text: rf"\textbf{{{latex_text(text)}}}"):
        lines.append(" & ".join([latex_text(method), *row]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def headings(table: Table) -> list[str]:
    """Return the headings of the columns: method, metrics, seconds, parameters."""
    return ["method", *(column.label for column in table.columns), "seconds", "parameters"]


def cells(table: Table, plain: Mark, bold: Mark) -> list[tuple[str, list[str]]]:
    """Return the rows, the method as it is called and the other columns as text, made by `bold` where it is best."""
    best = {column.name: table.best(column) for column in table.columns}
    decimals = {column.name: _decimals(column, table) for column in table.columns}
    rows = []
    for record in table.records:
        texts = []
        for column in table.columns:
            summary = record.metrics.get(column.name)
            mark = bold if record.method.name in best[column.name] else plain
            mean, rest = _cell(summary, column, decimals[column.name]) if summary else ("–", "")
            texts.append(mark(mean) + plain(mean + rest)[len(plain(mean)) :])
        seconds = f"{record.speed.seconds_median:.2g}" if record.speed else "–"
        rows.append((marked(record), [*texts, plain(seconds), plain(parameters_text(record.method.parameters))]))
    return rows


def _cell(summary: Summary, column: Column, decimals: int) -> tuple[str, str]:
    """Return the mean, and what follows it: the interval, and the count where images are missing."""
    mean, rest = "∞" if summary.infinite else "–", ""
    if summary.mean is not None:
        mean = f"{summary.mean:.{decimals}f}"
        if summary.low is not None:
            rest += f" [{summary.low:.{decimals}f}, {summary.high:.{decimals}f}]"
        if summary.infinite:
            rest += f" and {summary.infinite} × ∞"
    return mean, rest if column.complete(summary) else f"{rest} (n = {summary.count + summary.infinite})"


def _decimals(column: Column, table: Table) -> int:
    """Return as many decimals as give four digits to the largest mean, three at the most."""
    summaries = (record.metrics.get(column.name) for record in table.records)
    largest = max((abs(summary.mean) for summary in summaries if summary and summary.mean), default=1)
    return min(3, max(0, 3 - floor(log10(largest))))


def notes(table: Table, safe: Mark) -> list[str]:
    """Say what the numbers are and what the seconds were measured on; `safe` makes safe what the records say."""
    dataset = table.dataset
    counts = f"{dataset.samples} images, {dataset.pairs} with a clear one."
    lines = [f"{counts} Mean [95 % bootstrap interval]; ↑ higher, ↓ lower is better. Best in bold."]
    if failed := failures(table):
        lines.append(f"Failures: {safe(failed)}.")
    lines += [*look_notes(table.records), *overlaps(table, safe)]
    machines = defaultdict(list)
    for record in table.records:
        if speed := record.speed:
            where = record.environment.get("accelerator") if speed.device.startswith("cuda") else None
            where = where or record.environment.get("cpu", speed.device)
            threads = f"{speed.threads} thread{'s' * (speed.threads != 1)}"
            on = f"{speed.megapixels_median:.2g} megapixels, {where}, {speed.dtype}, {threads}"
            machines[on].append(record.method.name)
    for on, methods in machines.items():
        whose = f" of {safe(', '.join(methods))}" if len(machines) > 1 else ""
        lines.append(f"Seconds{whose}: median in the network for an image, {safe(on)}.")
    return lines


def failures(table: Table) -> str:
    """Name the methods that failed on images, with the number of failures."""
    return ", ".join(f"{record.method.name} ({len(record.failures)})" for record in table.records if record.failures)


def look_notes(records: Iterable[Record]) -> list[str]:
    """Say what the look photo is, if one of the records is of it."""
    if not any(record.method.look == "photo" for record in records):
        return []
    return [
        "(photo): exposed as a camera would have exposed the clear view. Without it, results keep the photograph's "
        "exposure, which clear images share with hazy ones."
    ]


def overlaps(table: Table, safe: Mark) -> list[str]:
    """Say which methods were trained on images that overlap the table's set, and of which nobody knows."""
    found = [f"{method} ({', '.join(sets)})" for method, sets in table.contaminated.items()]
    lines = [f"† Trained on data that overlaps this set: {safe(', '.join(found))}."] if found else []
    if table.unstated:
        lines.append(f"Training data not stated, or not checked for overlap: {safe(', '.join(table.unstated))}.")
    return lines


def score_text(summary: Summary, column: Column) -> str:
    """Return the mean with its 95 % interval, and the count where images are missing."""
    if summary.mean is None:
        return "∞" if summary.infinite else "–"
    text = f"{summary.mean:.4g}"
    if summary.low is not None:
        text += f" [{summary.low:.3g}, {summary.high:.3g}]"
    if summary.infinite:
        text += f" and {summary.infinite} × ∞"
    return text if column.complete(summary) else f"{text}, n = {summary.count + summary.infinite}"


def parameters_text(count: int | None) -> str:
    """Return a number of parameters in millions or thousands."""
    if count is None:
        return "–"
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)
