"""The leaderboard as widgets of a Gradio page: filters, a table that sorts, a figure, and a look at single images."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import numpy as np

from bench.compare import Scored
from bench.errors import DrawingError, RecordError, UnknownMetricError
from bench.record import RESULTS, Record, read_folder, read_values
from bench.report import figures, render
from bench.report.escape import html_text, markdown_text, visible
from bench.report.table import Table, marked, tables
from leaderboard import citation, rank
from leaderboard.page import PRIVATE, Listening, explorer

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEST = "font-weight: 700; letter-spacing: -0.03em"  # bold, yet no wider, as columns fit the plain text
OVERLAPPING, PREDICTED = "trained on data that overlaps the set (†)", "scored from predictions (‡)"


class Boards:
    """The tables of a folder of records, by data set and protocol, those with most methods first."""

    def __init__(self, results: Path):
        self._records, self.broken = read_folder(results)
        found = sorted(tables(self._records.values()), key=lambda table: -len(table.records))
        self.tables: dict[str, dict[str, Table]] = {}
        for table in found:
            name = table.dataset.name
            if any(other.dataset.name == name and other.dataset != table.dataset for other in found):
                name += f" (set {visible(table.dataset.fingerprint[:8])})"
            self.tables.setdefault(name, {}).setdefault(table.protocol, table)  # none takes the place of a larger one

    def scored(self, record: Record) -> Scored:
        """Return a record with its per-image values. Raises RecordError if they cannot be trusted."""
        [path] = [path for path, other in self._records.items() if other is record]
        return Scored(record, read_values(path, record))


def leaderboard(results: Path = RESULTS, restore: explorer.Restore | None = None) -> None:
    """Add the leaderboard of the records in `results` to the Blocks that are being built.

    `restore` lets the page show restored photographs of the sample set beside each other: records hold none, and the
    leaderboard itself runs no model.
    """
    import gradio as gr

    boards = Boards(results)
    if not boards.tables:
        gr.Markdown("There are no results yet. They appear here as soon as a benchmark has run.")
        return
    first, protocols = next(iter(boards.tables.items()))
    table = next(iter(protocols.values()))

    def find(dataset: str, protocol: str | None, *methods: str) -> tuple[Table, list[Record]]:
        """Return a table (by default a data set's first) and the records of methods in it."""
        try:
            protocols = boards.tables[dataset]
            table = protocols[protocol] if protocol in protocols else next(iter(protocols.values()))
            by_name = {record.method.name: record for record in table.records}
            return table, [by_name[name] for name in methods]
        except (KeyError, TypeError):  # a page from before a restart, or a client with choices of its own
            raise gr.Error("The board has no such entry. Reload the page.", print_exception=False) from None

    def choose(dataset: str, protocol: str | None = None) -> tuple:
        """Show another table: all its methods, ranked by the metrics that decide by default."""
        table, _ = find(dataset, protocol)
        protocols = boards.tables[dataset]
        names, methods, rivals = _metrics(table), _methods(table), _rivals(table)
        return (
            gr.Dropdown(list(protocols), value=table.protocol),
            gr.CheckboxGroup(names, value=rank.voters(table)),
            gr.Dropdown(licences(table), value=[]),
            gr.CheckboxGroup(value=[]),
            gr.Dropdown(names, value=rivals[2]),
            *narrow(dataset, table.protocol, None, rank.voters(table), [], []),
            gr.Dropdown(methods, value=rivals[0]),
            gr.Dropdown(methods, value=rivals[1]),
            gr.Dropdown(names, value=rivals[2]),
            *compare(dataset, table.protocol, *rivals),
        )

    def narrow(dataset: str, protocol: str, metric: str | None, *filters: list[str]) -> tuple:
        """Show the part of a table that the filters leave."""
        table = narrowed(find(dataset, protocol)[0], *filters)
        return grid(table, filters[0]), notes(table), exports(table), draw(dataset, protocol, metric, *filters)

    def draw(dataset: str, protocol: str, metric: str | None, *filters: list[str]) -> np.ndarray | None:
        table, _ = find(dataset, protocol)
        try:
            return picture(figures.quality_against_speed(narrowed(table, *filters), metric))
        except (DrawingError, UnknownMetricError):  # nothing was timed or scored
            return None

    def compare(dataset: str, protocol: str, a: str, b: str, metric: str | None) -> tuple:
        """Set two methods side by side, where B loses most first."""
        _, (record_a, record_b) = find(dataset, protocol, a, b)
        try:
            if metric is None:
                raise RecordError("The table has no metric to compare by.")
            before, after = boards.scored(record_a), boards.scored(record_b)
            found, rows = explorer.side_by_side(before, after, metric)
            text = explorer.verdict(found, a, b)
        except RecordError as error:
            return markdown_text(error.for_visitors()), _rows([]), None, gr.update(choices=[], value=None)
        try:
            names = f"{a} (A)", f"{b} (B)"
            drawn = picture(
                figures.scatter(before.values(metric), after.values(metric), names, metric, found.direction)
            )
        except DrawingError:  # no finite value by both
            drawn = None
        return text, _rows(rows), drawn, gr.update(choices=[(visible(row[0]), row[0]) for row in rows], value=None)

    def look(dataset: str, protocol: str, a: str, b: str, image: str | None) -> tuple[gr.Gallery, str]:
        """Show an image by both methods, as far as there are pictures."""
        if image is None:
            return gr.Gallery([], visible=False), ""
        _, (record_a, record_b) = find(dataset, protocol, a, b)
        found, remark = explorer.pictures((record_a, record_b), image, restore)
        return gr.Gallery(found, visible=bool(found)), remark

    def pick(event: gr.SelectData) -> str:
        return event.row_value[0]

    voting = rank.voters(table)
    with gr.Row():
        dataset = gr.Dropdown(list(boards.tables), value=first, label="Data set", elem_id="dataset")
        protocol = gr.Dropdown(list(protocols), value=table.protocol, label="Protocol", elem_id="protocol")
        licence = gr.Dropdown(
            licences(table), value=[], multiselect=True, label="Licence", info="none chosen: all", elem_id="licence"
        )
    with gr.Row():
        metrics = gr.CheckboxGroup(
            _metrics(table),
            value=voting,
            label="Metrics",
            info="the rank counts the selected metrics",
            elem_id="metrics",
        )
        without = gr.CheckboxGroup(
            [OVERLAPPING, PREDICTED], value=[], label="Leave out methods", info="that were", elem_id="without"
        )
    methods = gr.Dataframe(
        grid(table, voting), datatype="str", label="Methods", show_label=False, show_search="search", pinned_columns=1,
        interactive=False, buttons=["copy", "fullscreen"], elem_id="methods",
    )  # fmt: skip
    with gr.Accordion("How the rank is made", open=False):
        gr.Markdown(rank.EXPLANATION)
    links = gr.HTML(exports(table), elem_id="exports", padding=False)
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            about = gr.Markdown(notes(table), elem_id="notes")
            quality = gr.Dropdown(_metrics(table), label="Quality in the figure", elem_id="quality")
        with gr.Column(scale=3, min_width=320):
            figure = gr.Image(
                draw(first, table.protocol, None, voting, [], []), label="Quality against speed",
                alt_text="Each method's score against its seconds for an image; a line joins the Pareto front",
                show_label=False, format="png", interactive=False, buttons=["download", "fullscreen"], elem_id="figure",
            )  # fmt: skip

    gr.Markdown("### Image by image\nTwo methods on the same images; those on which B loses most come first.")
    names, rivals = _methods(table), _rivals(table)
    text, rows, drawn, listed = compare(first, table.protocol, *rivals)
    with gr.Row():
        a = gr.Dropdown(names, value=rivals[0], label="A", info="what is compared with", elem_id="a")
        b = gr.Dropdown(names, value=rivals[1], label="B", info="what the verdict is about", elem_id="b")
        by = gr.Dropdown(_metrics(table), label="Metric", info="that sorts the images", elem_id="by")
    conclusion = gr.Markdown(text, elem_id="verdict")
    with gr.Row():
        with gr.Column(scale=3, min_width=320):
            images = gr.Dataframe(
                rows, datatype="str", label="Images", show_label=False, show_search="search", pinned_columns=1,
                interactive=False, buttons=["copy", "fullscreen"], elem_id="images", max_height=420,
            )  # fmt: skip
        with gr.Column(scale=2, min_width=320):
            scatter = gr.Image(
                drawn, label="B against A", alt_text="Each image's score by B against its score by A", show_label=False,
                format="png", interactive=False, buttons=["download", "fullscreen"], elem_id="scatter",
            )  # fmt: skip
    image = gr.Dropdown(
        listed["choices"], value=None, label="Look at an image", info="or click its row above", elem_id="image"
    )
    seen = gr.Gallery(
        label="Pictures", show_label=False, columns=4, height="auto", object_fit="contain", visible=False,
        interactive=False, elem_id="pictures",
    )  # fmt: skip
    remark = gr.Markdown(elem_id="remark")

    queued: Listening = {**PRIVATE, "trigger_mode": "always_last"}  # what is chosen last counts
    at_once: Listening = {**queued, "queue": False}  # light: nobody waits for photographs that others have restored
    shown, filters = [dataset, protocol], [metrics, licence, without]
    outputs = [protocol, metrics, licence, without, quality, methods, about, links, figure, a, b, by]
    outputs += [conclusion, images, scatter, image]
    dataset.input(choose, dataset, outputs, **at_once)
    protocol.input(choose, shown, outputs, **at_once)
    for control in filters:
        control.input(narrow, [*shown, quality, *filters], [methods, about, links, figure], **at_once)
    quality.input(draw, [*shown, quality, *filters], figure, **at_once)
    sides = [*shown, a, b]
    for control in (a, b, by):
        control.input(compare, [*sides, by], outputs[-4:], **at_once)
    images.select(pick, None, image, **at_once)
    image.change(look, [*sides, image], [seen, remark], concurrency_limit=1, **queued)


def narrowed(table: Table, metrics: Sequence[str], chosen: Sequence[str], without: Sequence[str]) -> Table:
    """Return the part of a table under the `chosen` licences (all if none), less what `without` says, ranked.

    The chosen `metrics` come first among the columns, and the best by Borda count first among the methods.
    """
    records = tuple(
        record
        for record in table.records
        if (not chosen or licence_of(record) in chosen)
        and not (OVERLAPPING in without and record.contaminated)
        and not (PREDICTED in without and record.method.source == "predictions")
    )
    columns = tuple(sorted(table.columns, key=lambda column: column.name not in metrics))
    part = replace(table, columns=columns, records=records)
    standings = zip(rank.borda(part, metrics or None), records, strict=True)
    return replace(part, records=tuple(record for _, record in sorted(standings, key=lambda one: one[0].place)))


def grid(table: Table, metrics: Sequence[str] | None = None) -> dict[str, Any]:
    """Return a table for gr.Dataframe: numbers to sort by, texts to read, the best of each column in bold."""
    headers, rows = table.grid()
    standings = rank.borda(table, metrics or None)
    ordered = sorted(zip(standings, table.records, rows, strict=True), key=lambda one: one[0].place)
    values, texts, styles = [], [], []
    for standing, record, row in ordered:
        scores = [(column, record.metrics.get(column.name)) for column in table.columns]
        seconds, megapixels, parameters = row[-3:]
        values.append([row[0], standing.place, *row[1:], licence_of(record)])
        texts.append([
            name_with_marks(record),
            f"{standing.place} ({standing.share:.0%})",
            *("–" if summary is None else render.score_text(summary, column) for column, summary in scores),
            "–" if seconds is None else f"{seconds:.2g}",
            "–" if megapixels is None else f"{megapixels:.2g}",
            "–" if parameters is None else f"{parameters:,}",
            licence_of(record),
        ])  # fmt: skip
        best = [BEST if record.method.name in table.best(column) else "" for column, _ in scores]
        styles.append(["", "", *best, "", "", "", ""])
    headers = [headers[0], "rank", *headers[1:], "licence"]
    return {"headers": headers, "data": values, "metadata": {"display_value": texts, "styling": styles}}


def name_with_marks(record: Record) -> str:
    """Return the method's name, with † if its training data overlaps the set, with ‡ if predictions were scored."""
    return marked(record) + (" ‡" if record.method.source == "predictions" else "")


def licence_of(record: Record) -> str:
    """Return the licence of the method in small letters, as it is written in many ways."""
    return visible(record.method.license or "").lower() or "none stated"


def licences(table: Table) -> list[str]:
    """List the licences of a table's methods."""
    return sorted({licence_of(record) for record in table.records})


def notes(table: Table) -> str:
    """Say in Markdown what the numbers of a table are and what they were measured on."""
    info = table.dataset
    name, protocol = markdown_text(info.name), markdown_text(table.protocol)
    lines = [
        f"**{name}**: {info.samples} images, {info.pairs} of them with a clear one to compare with.",
        f"**{protocol}**: the protocol. Numbers under different protocols are never comparable.",
        "**Scores**: the mean over the images with its 95 % bootstrap interval; ↑ higher or ↓ lower is better, and the "
        "best is bold. Sort and filter by a header's menu (⋮).",
    ]
    if not table.records:
        lines.append("**No method** is left by these filters.")
    if machines := sorted({record.environment.get("cpu", "") for record in table.records if record.speed} - {""}):
        lines.append(f"**Seconds**: median for one image, in the network, on {markdown_text('; '.join(machines))}.")
    if failed := render.failures(table):
        lines.append(f"**Failed images**: {markdown_text(failed)}.")
    if any(record.method.source == "predictions" for record in table.records):
        lines.append("‡ Scored from predictions made elsewhere: nobody here ran the method, and its time is not known.")
    lines += [*render.look_notes(table.records), *render.overlaps(table, markdown_text)]
    return "\n\n".join(lines)


def exports(table: Table) -> str:
    """Return links that save the shown table as a file; they hold the whole of it, so that no file is kept here."""
    if not table.records:
        return ""
    stem = f"{table.dataset.name}-{table.protocol}"
    files = [
        ("CSV", f"{stem}.csv", "text/csv", render.as_csv([table]) + "\n"),
        ("LaTeX", f"{stem}.tex", "text/plain", render.latex([table]) + "\n"),
        ("Markdown", f"{stem}.md", "text/plain", render.markdown([table]) + "\n"),
        ("BibTeX", f"{stem}.bib", "text/plain", citation.bibtex(table)),
    ]
    links = (
        f"<a download='{html_text(name)}' href='data:{kind};charset=utf-8,{quote(text, safe='')}'>{label}</a>"
        for label, name, kind, text in files
    )
    return f"<p><span>Export:</span>{''.join(links)}</p>"


def picture(figure: "Figure") -> np.ndarray:
    """Return a figure as pixels [H,W,3] for gr.Image."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    figure.set_dpi(160)
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    return np.asarray(canvas.buffer_rgba())[..., :3]


def _metrics(table: Table) -> list[str]:
    return [column.name for column in table.columns]


def _methods(table: Table) -> list[str]:
    return [record.method.name for record in table.records]


def _rivals(table: Table) -> tuple[str, str, str | None]:
    """Return what is compared at first: the second of a table, its first, and its first metric."""
    methods, names = _methods(table), _metrics(table)
    return methods[min(1, len(methods) - 1)], methods[0], names[0] if names else None


def _rows(rows: list[explorer.Row]) -> dict[str, Any]:
    """Return rows of the explorer for gr.Dataframe."""
    texts = [[visible(id_), *("–" if value is None else f"{value:.4g}" for value in values)] for id_, *values in rows]
    data = [list(row) for row in rows]
    return {"headers": list(explorer.HEADERS), "data": data, "metadata": {"display_value": texts}}
