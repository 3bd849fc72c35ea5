"""The leaderboard as widgets of a Gradio page."""

from pathlib import Path
from typing import Any

import numpy as np

from bench.record import RESULTS, Summary, read_folder
from bench.report import figures
from bench.report.render import overlaps
from bench.report.table import Column, Table, marked, tables

BEST = "font-weight: 700; letter-spacing: -0.03em"  # bold, yet no wider, as columns fit the plain text


def leaderboard(results: Path = RESULTS) -> None:
    """Add the tables of the records in `results` and a figure to the Blocks that are being built."""
    import gradio as gr

    records, _ = read_folder(results)
    boards = sorted(tables(records.values()), key=lambda board: -len(board.records))  # most methods first
    if not boards:
        gr.Markdown("There are no results yet. They appear here as soon as a benchmark has run.")
        return

    def choose(index: int) -> tuple:
        names = [column.name for column in boards[index].columns]
        metric = gr.Dropdown(names, value=names[0] if names else None)
        return grid(boards[index]), notes(boards[index]), metric, draw(index)

    def draw(index: int, metric: str | None = None) -> np.ndarray | None:
        try:
            figure = figures.quality_against_speed(boards[index], metric)
        except ValueError:  # nothing was timed or scored
            return None
        figure.set_dpi(160)
        figure.canvas.draw()
        return np.asarray(figure.canvas.buffer_rgba())[..., :3]

    names = [column.name for column in boards[0].columns]
    titles = [(board.title, index) for index, board in enumerate(boards)]
    chosen = gr.Dropdown(titles, value=0, label="Data set and protocol", elem_id="board")
    methods = gr.Dataframe(
        grid(boards[0]), label="Methods", show_label=False, show_search="search", pinned_columns=1, interactive=False,
        buttons=["copy", "fullscreen"], elem_id="methods",
    )  # fmt: skip
    with gr.Row():
        with gr.Column(scale=2, min_width=320):
            about = gr.Markdown(notes(boards[0]), elem_id="notes")
            metric = gr.Dropdown(names, value=names[0] if names else None, label="Quality in the figure")
        with gr.Column(scale=3, min_width=320):
            figure = gr.Image(
                draw(0), label="Quality against speed", alt_text="Each method's score against its seconds for an image",
                show_label=False, format="png", interactive=False, buttons=["download", "fullscreen"], elem_id="figure",
            )  # fmt: skip
    chosen.input(choose, chosen, [methods, about, metric, figure], api_visibility="private")
    metric.input(draw, [chosen, metric], figure, api_visibility="private")


def grid(table: Table) -> dict[str, Any]:
    """Return a table for gr.Dataframe: numbers to sort by, texts to read, the best of each column in bold."""
    headers, rows = table.grid()
    texts, styles = [], []
    for record, row in zip(table.records, rows, strict=True):
        scores = [(column, record.metrics.get(column.name)) for column in table.columns]
        seconds, megapixels, parameters = row[-3:]
        texts.append([
            marked(record),
            *("–" if summary is None else score_text(summary, column) for column, summary in scores),
            "–" if seconds is None else f"{seconds:.2g}",
            "–" if megapixels is None else f"{megapixels:.2g}",
            "–" if parameters is None else f"{parameters:,}",
        ])  # fmt: skip
        best = [BEST if record.method.name in table.best(column) else "" for column, _ in scores]
        styles.append(["", *best, "", "", ""])
    return {"headers": headers, "data": rows, "metadata": {"display_value": texts, "styling": styles}}


def score_text(summary: Summary, column: Column) -> str:
    """Return the mean with its 95 % interval, and the count where images are missing."""
    if summary.mean is None:
        return "∞" if summary.infinite else "–"
    text = f"{summary.mean:.4g}"
    if summary.low is not None:
        text += f" [{summary.low:.3g}, {summary.high:.3g}]"
    if summary.infinite:
        text += f" and {summary.infinite} × ∞"
    return text if column.complete(summary) else f"{text}, n = {summary.count + summary.infinite}"


def notes(table: Table) -> str:
    """Say what the numbers of a table are and what they were measured on."""
    info = table.dataset
    lines = [
        f"**{info.name}**: {info.samples} images, {info.pairs} of them with a clear one to compare with.",
        f"**{table.protocol}**: the protocol. Numbers under different protocols are never comparable.",
        "**Scores**: the mean over the images with its 95 % bootstrap interval; ↑ higher or ↓ lower is better, and the "
        "best is bold. Sort and filter by a header's menu (⋮).",
    ]
    if machines := sorted({record.environment.get("cpu", "") for record in table.records if record.speed} - {""}):
        lines.append(f"**Seconds**: median for one image, in the network, on {'; '.join(machines)}.")
    if failures := [f"{record.method.name} ({len(record.failures)})" for record in table.records if record.failures]:
        lines.append(f"**Failed images**: {', '.join(failures)}.")
    lines += overlaps(table)
    return "\n\n".join(lines)
