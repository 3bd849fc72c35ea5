"""A table as text: Markdown, LaTeX, CSV, JSON."""

import csv
import io
import json
import re
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import asdict
from math import floor, log10

from bench.record import Summary
from bench.report.table import Column, Table, marked


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
    writer.writerow([*about, *(f"{name}{part}" for name in metrics for part in parts), *speed])
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
            writer.writerow([*row, record.method.parameters])
    return text.getvalue().rstrip("\n")


def as_json(tables: Sequence[Table]) -> str:
    """Render tables as JSON: what the records hold, grouped, ranked and with the best marked."""
    return json.dumps([_plain(table) for table in tables], indent=2, ensure_ascii=False)


FORMATS: dict[str, Callable[[Sequence[Table]], str]] = {
    "md": markdown,
    "latex": latex,
    "csv": as_csv,
    "json": as_json,
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
    headers = headings(table)
    lines = [f"### {_markdown_text(name)}", "", _row(headers), _row(["---"] + ["---:"] * (len(headers) - 1))]
    for method, row in cells(table, lambda text: f"**{text}**"):
        lines.append(_row([_markdown_text(method), *row]))
    lines += ["", *notes(table)]
    return "\n".join(lines)


def _latex(table: Table, name: str) -> str:
    headers = headings(table)
    lines = [f"% {line}" for line in (name, *notes(table))]
    lines += [rf"\begin{{tabular}}{{l{'r' * (len(headers) - 1)}}}", r"\toprule"]
    lines += [" & ".join(_latex_text(heading) for heading in headers) + r" \\", r"\midrule"]
    for method, row in cells(table, lambda text: f"\0{text}\1"):
        texts = (_latex_text(cell).replace("\0", r"\textbf{").replace("\1", "}") for cell in row)
        lines.append(" & ".join([_latex_text(method), *texts]) + r" \\")
    return "\n".join([*lines, r"\bottomrule", r"\end{tabular}"])


def headings(table: Table) -> list[str]:
    """Return the headings of the columns: method, metrics, seconds, parameters."""
    return ["method", *(column.label for column in table.columns), "seconds", "parameters"]


def cells(table: Table, bold: Callable[[str], str]) -> list[tuple[str, list[str]]]:
    """Return the rows as text, method and other columns; `bold` marks what is best."""
    best = {column.name: table.best(column) for column in table.columns}
    decimals = {column.name: _decimals(column, table) for column in table.columns}
    rows = []
    for record in table.records:
        texts = []
        for column in table.columns:
            summary = record.metrics.get(column.name)
            mark = bold if record.method.name in best[column.name] else str
            texts.append(_cell(summary, column, decimals[column.name], mark) if summary else "–")
        seconds = f"{record.speed.seconds_median:.2g}" if record.speed else "–"
        rows.append((marked(record), [*texts, seconds, _parameters(record.method.parameters)]))
    return rows


def _cell(summary: Summary, column: Column, decimals: int, mark: Callable[[str], str]) -> str:
    if summary.mean is None:
        text = mark("∞") if summary.infinite else "–"
    else:
        text = mark(f"{summary.mean:.{decimals}f}")
        if summary.low is not None:
            text += f" [{summary.low:.{decimals}f}, {summary.high:.{decimals}f}]"
        if summary.infinite:
            text += f" and {summary.infinite} × ∞"
    return text if column.complete(summary) else f"{text} (n = {summary.count + summary.infinite})"


def _decimals(column: Column, table: Table) -> int:
    """Return as many decimals as give four digits to the largest mean, three at the most."""
    summaries = (record.metrics.get(column.name) for record in table.records)
    largest = max((abs(summary.mean) for summary in summaries if summary and summary.mean), default=1)
    return min(3, max(0, 3 - floor(log10(largest))))


def notes(table: Table) -> list[str]:
    """Say what the numbers are and what the seconds were measured on."""
    dataset = table.dataset
    counts = f"{dataset.samples} images, {dataset.pairs} with a clear one."
    lines = [f"{counts} Mean [95 % bootstrap interval]; ↑ higher, ↓ lower is better. Best in bold."]
    if failed := [f"{record.method.name} ({len(record.failures)})" for record in table.records if record.failures]:
        lines.append(f"Failures: {', '.join(failed)}.")
    lines += overlaps(table)
    machines = defaultdict(list)
    for record in table.records:
        if speed := record.speed:
            where = record.environment.get("accelerator") if speed.device.startswith("cuda") else None
            where = where or record.environment.get("cpu", speed.device)
            threads = f"{speed.threads} thread{'s' * (speed.threads != 1)}"
            on = f"{speed.megapixels_median:.2g} megapixels, {where}, {speed.dtype}, {threads}"
            machines[on].append(record.method.name)
    for on, methods in machines.items():
        whose = f" of {', '.join(methods)}" if len(machines) > 1 else ""
        lines.append(f"Seconds{whose}: median in the network for an image, {on}.")
    return lines


def overlaps(table: Table) -> list[str]:
    """Say which methods were trained on images that overlap the table's set, and of which nobody knows."""
    found = [f"{method} ({', '.join(sets)})" for method, sets in table.contaminated.items()]
    lines = [f"† Trained on data that overlaps this set: {', '.join(found)}."] if found else []
    if table.unstated:
        lines.append(f"Training data not stated, or not checked for overlap: {', '.join(table.unstated)}.")
    return lines


def _parameters(count: int | None) -> str:
    if count is None:
        return "–"
    for size, unit in ((1e6, "M"), (1e3, "k")):
        if count >= size:
            return f"{count / size:.3g} {unit}"
    return str(count)


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _markdown_text(text: str) -> str:
    return re.sub(r"([\\`*<>|\[\]])", r"\\\1", " ".join(text.split()))


_LATEX = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "∞": r"$\infty$",
    "×": r"$\times$",
    "–": "--",
    "Δ": r"$\Delta$",
    "†": r"$^\dagger$",
} | {mark: f"\\{mark}" for mark in "&%$#_{}"}


def _latex_text(text: str) -> str:
    return "".join(_LATEX.get(letter, letter) for letter in text)
