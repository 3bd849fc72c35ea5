"""Tables of figures in documents: written from the records, between markers, and typed by nobody.

A table stands between the lines `<!-- figures: NAME -->` and `<!-- /figures -->`; NAME is in TABLES, or `card MODEL`.
"""

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from statistics import median

from bench.errors import RecordError
from bench.record import RESULTS, Record, Summary
from bench.report.escape import markdown_text
from bench.report.render import look_notes, parameters_text, score_text, table_row
from bench.report.table import ARROWS, marked, tables

REPOSITORY = RESULTS.parents[1]
PROTOCOL = "long800-v1"
# The columns: data sets, and what readers call them.
REFERENCE_SETS = {
    "dense-haze-test-5": "Dense-Haze",
    "nh-haze2-5": "NH-HAZE2",
    "o-haze-3": "O-HAZE",
    "sots-outdoor-25": "SOTS outdoor",
    "sots-indoor-15": "SOTS indoor",
    "clear-20": "clear photographs",
}
NO_REFERENCE_SETS = {"fattal-27": "Fattal", "rtts-25": "RTTS"}

# The first line counts only at the start of a line, so that a document can quote it.
_BLOCK = re.compile(r"^(<!-- figures: ([^\n]+?) -->\n)(?:(?!<!-- figures: ).)*?^(<!-- /figures -->)", re.DOTALL | re.M)
_START = re.compile(r"^<!-- figures: .*$", re.M)


def documents(root: Path = REPOSITORY) -> list[Path]:
    """List the documents that may hold tables: README, docs and cards."""
    return [root / "README.md", *sorted(root.glob("docs/**/*.md")), *sorted(root.glob("dehaze/weights/*/README.md"))]


def stale(paths: Iterable[Path], records: Sequence[Record]) -> dict[Path, str]:
    """Return the documents whose tables differ from those of `records`, each with its new text.

    Raises RecordError that names the document whose markers are malformed.
    """
    changed = {}
    for path in paths:
        before = path.read_text(encoding="utf-8")
        try:
            after = rewrite(before, records)
        except RecordError as error:
            raise RecordError(
                f"holds a table that cannot be written: {error.reason}", error.advice, subject=path
            ) from None
        if after != before:
            changed[path] = after
    return changed


def rewrite(text: str, records: Sequence[Record]) -> str:
    """Return a document with all its tables written anew. Raises RecordError if a marker is malformed."""
    if len(_START.findall(text)) != len(_BLOCK.findall(text)):
        raise RecordError("A marker '<!-- figures: NAME -->' has no '<!-- /figures -->' on a line of its own.")
    return _BLOCK.sub(lambda found: f"{found[1]}{table(found[2], records)}\n{found[3]}", text)


def table(name: str, records: Sequence[Record]) -> str:
    """Return the table called `name` in Markdown. Raises RecordError if there is none."""
    kind, _, model = name.partition(" ")
    if kind == "card" and model:
        if own := [record for record in records if is_model(record, model)]:
            return card_table(own)
        raise RecordError(f"There is no record of the model {model}.")
    if name not in TABLES:
        raise RecordError(f"There is no table {name!r}; there are {', '.join(TABLES)}, card MODEL.")
    return TABLES[name](records)


def is_model(record: Record, name: str) -> bool:
    """Tell whether a record is of the project's model `name` in one of its looks.

    Predictions under its name are not, and neither are results with adjustments that are not the look's own.
    """
    method = record.method
    return method.model == name and method.source == "model" and not method.adjustments


def reference_table(records: Sequence[Record]) -> str:
    """Return PSNR and SSIM of all methods on the sets with clear images."""
    return _methods_table(records, REFERENCE_SETS, {"psnr": 2, "ssim": 3})


def no_reference_table(records: Sequence[Record]) -> str:
    """Return FADE and NIQE of all methods on the sets of real photographs."""
    return _methods_table(records, NO_REFERENCE_SETS, {"fade": 3, "niqe": 3})


def speed_table(records: Sequence[Record]) -> str:
    """Return parameters and seconds for a megapixel of every model that was timed on a CPU."""
    speeds = seconds_per_megapixel(records)
    lines = [
        table_row(["model", "parameters", "seconds for a megapixel", "measured on"]),
        table_row(["---", "---:", "---:", "---"]),
    ]
    timed = [record for record in records if _cpu_speed(record) is not None]
    for name in _ordered(timed):
        own = [record for record in timed if record.method.name == name]
        machines = sorted({record.environment.get("cpu", "unknown CPU") for record in own})
        cells = name, parameters_text(own[0].method.parameters), f"{speeds[name]:#.2g}", "; ".join(machines)
        lines.append(table_row([markdown_text(cell) for cell in cells]))
    return "\n".join(lines)


def seconds_per_megapixel(records: Iterable[Record]) -> dict[str, float]:
    """Return the median speed of each model over those of its records that were timed on a CPU."""
    found: dict[str, list[float]] = defaultdict(list)
    for record in records:
        if (speed := _cpu_speed(record)) is not None:
            found[record.method.name].append(speed)
    return {name: median(speeds) for name, speeds in found.items()}


def _cpu_speed(record: Record) -> float | None:
    """Return the seconds per megapixel of a model on a CPU, None if the record does not tell."""
    speed = record.speed
    if record.method.source != "model" or speed is None or speed.device != "cpu" or not speed.megapixels_median:
        return None
    return speed.seconds_median / speed.megapixels_median


def card_table(records: Sequence[Record]) -> str:
    """Return what a model scores on each data set under each protocol, in each look, for its card."""
    found = tables(records)
    looks = len({record.method.name for record in records}) > 1
    columns = {column.name: column for one in found for column in one.columns}
    headings = [f"{name} {ARROWS[column.direction]}" for name, column in columns.items()]
    lines = [
        "Mean over all images of a set [95 % bootstrap interval]; ↑ higher or ↓ lower is better. Figures under",
        "different protocols are never comparable. † marks a set that the training data overlaps.",
        *look_notes(records),
        "",
        table_row([*["method"] * looks, "data set", "protocol", "images", *map(markdown_text, headings)]),
        table_row(["---"] * (2 + looks) + ["---:"] * (1 + len(columns))),
    ]
    rows = ((one, record) for one in found for record in sorted(one.records, key=lambda record: record.method.name))
    for one, record in rows:
        scores = [
            "–" if (summary := record.metrics.get(name)) is None else score_text(summary, one.column(name))
            for name in columns
        ]
        names = [record.method.name] * looks + [one.dataset.name + (" †" if record.contaminated else ""), one.protocol]
        lines.append(table_row([*map(markdown_text, names), str(one.dataset.samples), *scores]))
    return "\n".join(lines)


TABLES: dict[str, Callable[[Sequence[Record]], str]] = {
    "reference": reference_table,
    "no-reference": no_reference_table,
    "speed": speed_table,
}


def _methods_table(records: Sequence[Record], sets: dict[str, str], decimals: dict[str, int]) -> str:
    """Return a row for each method and a column for each data set, whose cells hold the means of the metrics."""
    found = {(record.method.name, record.dataset.name): record for record in records if record.protocol == PROTOCOL}
    there = [name for name in sets if any(dataset == name for _, dataset in found)]
    samples = {dataset: record.dataset.samples for (_, dataset), record in found.items()}
    lines = [
        table_row(["method", *(f"{sets[name]} ({samples[name]})" for name in there)]),
        table_row(["---", *["---:"] * len(there)]),
    ]
    for method in _ordered(list(found.values())):
        own = [found.get((method, name)) for name in there]
        if any(own):
            name = marked(next((record for record in own if record and record.contaminated), next(filter(None, own))))
            lines.append(table_row([markdown_text(name), *(_cell(record, decimals) for record in own)]))
    return "\n".join(lines)


def _cell(record: Record | None, decimals: dict[str, int]) -> str:
    if record is None:
        return "–"
    return " / ".join(_mean(record.metrics.get(name), places) for name, places in decimals.items())


def _mean(summary: Summary | None, decimals: int) -> str:
    if summary is None or summary.mean is None:
        return "∞" if summary and summary.infinite else "–"
    return f"{summary.mean:.{decimals}f}"


def _ordered(records: Sequence[Record]) -> list[str]:
    """List the methods: first models without parameters, then other models, then predictions, each by name."""
    ranks = {
        record.method.name: (record.method.source != "model", record.method.parameters != 0, record.method.name.lower())
        for record in records
    }
    return sorted(ranks, key=ranks.__getitem__)
