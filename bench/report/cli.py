"""What the command line of the harness does with records: compare | report."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.table import Table as Grid

from bench import compare as comparison
from bench.compare import Difference, Scored
from bench.errors import BenchError, RecordError, UsageError
from bench.record import RESULTS, Record, read, read_values, select, stem, write_atomic
from bench.report import figures, page
from bench.report.escape import terminal_text
from bench.report.pictures import find, small
from bench.report.render import FORMATS, Format, title
from bench.report.table import ARROWS, Table, tables

if TYPE_CHECKING:
    from matplotlib.figure import Figure

out = Console(highlight=False)
err = Console(highlight=False, stderr=True, soft_wrap=True)

Results = Annotated[Path, typer.Option(help="Folder of records.", show_default="the project's own")]
DatasetName = Annotated[
    str | None,
    typer.Option(
        "--dataset",
        help="Only records of this data set, named as for run. The page shows its hazy and clear images too, "
        "if they are found: sample, folder:PATH, hub:…, or a set under --data-root.",
    ),
]
ProtocolName = Annotated[str | None, typer.Option("--protocol", help="Only records under this protocol.")]
DataRoot = Annotated[Path | None, typer.Option(help="Folder that holds data sets of the catalogue.")]

_SHOWN = 3  # images at either end of a contact sheet
_SIDE = 640  # pixels of the long side of a picture on it


def compare(
    a: Annotated[str, typer.Argument(help="Method A, the baseline: a record (.json) or the name of a method.")],
    b: Annotated[str, typer.Argument(help="Method B, judged against A: a record or the name of a method.")],
    results: Results = RESULTS,
    dataset: DatasetName = None,
    protocol: ProtocolName = None,
    metric: Annotated[
        list[str] | None, typer.Option("--metric", help="May be repeated. Default: all that both have.")
    ] = None,
    tolerance: Annotated[
        list[str] | None,
        typer.Option(
            metavar="METRIC=UNITS",
            help="How much worse the mean may be, in the metric's unit (psnr=0.1); may be repeated.",
        ),
    ] = None,
    scatter: Annotated[
        Path | None, typer.Option(help="Figure to write (.png, .svg, .pdf): the first metric, image by image.")
    ] = None,
    sheet: Annotated[
        Path | None, typer.Option(help="Contact sheet to write: where B loses and gains most by the first metric.")
    ] = None,
    save_images: Annotated[
        list[Path] | None,
        typer.Option(help="Images for --sheet, from `run --save-images`: A's folder, then B's; one if it holds both."),
    ] = None,
    data_root: DataRoot = None,
) -> None:
    """Compare two methods image by image; exit with 1 if B is a step back from A.

    B counts as better or worse only if both hold: p < 0.05 in the Wilcoxon signed-rank test (Holm-corrected over the
    metrics of a data set), and the 95 % bootstrap interval of the mean difference excludes zero. B is a step back if a
    metric without tolerance has the verdict worse, if a mean is worse by more than its tolerance (significant or not),
    or if A has a value for an image and B has none.
    """
    with clean_errors():
        allowed = _tolerances(tolerance)
        sides = [
            [comparison.load(path) for path in comparison.find(side, results, _record_name(dataset), protocol)]
            for side in (a, b)
        ]
        pairs = comparison.pairs(*sides)
        found = [(before, after, comparison.compare(before, after, metric)) for before, after in pairs]
        if unknown := allowed.keys() - {one.metric for _, _, differences in found for one in differences}:
            raise UsageError(f"--tolerance names {', '.join(sorted(unknown))}, which is not compared.")
        for pair in found:
            _show(*pair)
        if scatter or sheet:
            if len(found) > 1:
                titles = "; ".join(f"{before.record.dataset.name}, {before.record.protocol}" for before, _, _ in found)
                raise UsageError("A figure is of one data set.", f"Choose with --dataset and --protocol from {titles}.")
            [(before, after, [first, *_])] = found
            if scatter:
                save_figure(_scatter(before, after, first), scatter)
            if sheet:
                folders = save_images or []
                if len(folders) not in (1, 2):
                    raise UsageError("--sheet shows images.", "Name A's folder and B's with --save-images.")
                shown = {
                    f"{before.record.method.name} (A)": _restored(folders[0], before),
                    f"{after.record.method.name} (B)": _restored(folders[-1], after),
                }
                save_figure(_sheet(before, after, first, _between(shown, after.record, dataset, data_root)), sheet)
        regressions = [
            f"{after.record.dataset.name}, {after.record.protocol}: {reason}"
            for _, after, differences in found
            for one in differences
            if (reason := one.regression(allowed.get(one.metric)))
        ]
    for reason in regressions:
        err.print(f"[red]step back:[/red] {terminal_text(reason)}")
    if regressions:
        raise typer.Exit(1)


def report(
    records: Annotated[list[Path] | None, typer.Argument(help="Records (.json). Default: all in --results.")] = None,
    results: Results = RESULTS,
    dataset: DatasetName = None,
    protocol: ProtocolName = None,
    format: Annotated[Format, typer.Option(help="html of one record shows its images; of many, their tables.")] = (
        Format.MD
    ),
    output: Annotated[Path | None, typer.Option(help="File to write; default: print.", dir_okay=False)] = None,
    metric: Annotated[
        str | None, typer.Option(help="For figures and the order of images. Default: the table's first.")
    ] = None,
    draw: Annotated[
        Path | None,
        typer.Option("--figures", help="Folder for figures of every table, as .png and .pdf.", file_okay=False),
    ] = None,
    restored: Annotated[
        Path | None,
        typer.Option("--save-images", help="Restored images to show: the folder given to run, or to score."),
    ] = None,
    data_root: DataRoot = None,
    images: Annotated[int, typer.Option(min=0, help="Images on the page of one record, worst first.")] = 200,
) -> None:
    """Report records as tables, as figures, or as a page in one file that opens offline."""
    with clean_errors():
        if records:
            chosen, broken = {path: read(path) for path in records}, []
        else:
            chosen, broken = select(results, _record_name(dataset), protocol)
        one = len(chosen) == 1 and format == Format.HTML
        if restored and not one:
            raise UsageError("--save-images is for --format html of one record.", "Name its file.")
        found = tables(chosen.values())
        for table in found:
            if len({record.stem for record in table.records}) < len(table.records):
                raise RecordError(f"Two of the records are of one method on {table.title}.", "Leave one out.")
        rows = {}
        for path, record in chosen.items() if format == Format.HTML or draw else ():
            try:
                rows[page.address(record)] = read_values(path, record)
            except RecordError as error:
                if one:
                    raise
                broken.append(error)
        if one:
            [record] = chosen.values()
            run = Scored(record, rows[page.address(record)])
            shown = {"restored": _restored(restored, run)} if restored else {}
            shown = _between(shown, record, dataset, data_root)
            text = page.of_run(record, run.rows, shown, metric=metric, limit=images)
        elif format == Format.HTML:
            text = page.of_tables(found, rows, metric)
        else:
            text = FORMATS[format](found)
        if draw:
            _draw(found, rows, metric, draw)
        if output:
            write_atomic(output, text.encode() + b"\n")
        else:
            typer.echo(text)
    for error in broken:
        err.print(f"[red]left out:[/red] {terminal_text(str(error))}")
    if broken:
        raise typer.Exit(1)


@contextmanager
def clean_errors() -> Iterator[None]:
    """Turn errors raised on purpose into one line; exit with 2 for wrong usage, else with 1."""
    try:
        yield
    except BenchError as error:
        err.print(f"[red]error:[/red] {terminal_text(str(error))}")
        raise typer.Exit(2 if isinstance(error, UsageError) else 1) from None


def _record_name(dataset: str | None) -> str | None:
    """Return what records call a data set that is named as for run."""
    if dataset is None or not dataset.startswith("folder:"):
        return dataset
    from bench.datasets import record_name  # loads torch, which tables do without

    return record_name(dataset)


def _tolerances(given: Sequence[str] | None) -> dict[str, float]:
    allowed = {}
    for text in given or ():
        name, _, units = text.partition("=")
        try:
            allowed[name] = float(units)
        except ValueError:
            raise UsageError(f"--tolerance {text} is not METRIC=UNITS, such as psnr=0.1.") from None
        if not allowed[name] >= 0:
            raise UsageError(f"--tolerance {text} is not zero or more.")
    return allowed


def _show(a: Scored, b: Scored, differences: Sequence[Difference]) -> None:
    """Print one table, and what its numbers cannot show."""
    names = f"B = {b.record.method.name} against A = {a.record.method.name}"
    title = f"{b.record.dataset.name}, {b.record.protocol}: {names}"
    out.print(terminal_text(title), style="bold", soft_wrap=True)
    columns = ("metric", "A", "B", "B − A", "95 %", "p", "B wins", "ties", "images", "B is")
    grid = Grid(*columns, box=None, padding=(0, 2, 0, 0))
    for one in differences:
        grid.add_row(
            f"{terminal_text(one.metric)} {ARROWS[one.direction]}",
            _number(one.mean_a),
            _number(one.mean_b),
            _number(one.mean, "+"),
            "–" if one.low is None else f"{one.low:+.3g} to {one.high:+.3g}",
            f"{one.p:.2g}",
            str(one.wins),
            str(one.ties),
            str(len(one.differences)),
            one.verdict,
        )
    Console(width=1000, highlight=False).print(grid)
    few = [one.metric for one in differences if 2 / 2 ** len(one.differences) * len(differences) >= comparison.ALPHA]
    if few:
        what = f"with {len(differences)} metrics: {terminal_text(', '.join(few))}"
        out.print(f"Too few images for p < {comparison.ALPHA} {what}.")
    if infinite := [one.metric for one in differences if one.infinite]:
        names = terminal_text(", ".join(infinite))
        out.print(f"Infinite values count in p and wins, but not in means: {names}.")
    out.print()


def _number(value: float | None, sign: str = "") -> str:
    return "–" if value is None else f"{value:{sign}.4g}"


def _scatter(a: Scored, b: Scored, one: Difference) -> "Figure":
    names = f"{a.record.method.name} (A)", f"{b.record.method.name} (B)"  # both may be one method, before and after
    return figures.scatter(a.values(one.metric), b.values(one.metric), names, one.metric, one.direction)


def _sheet(a: Scored, b: Scored, one: Difference, shown: dict[str, dict[str, Path]]) -> "Figure":
    """Show the images on which B loses most, and those on which it gains most."""
    before, after = a.values(one.metric), b.values(one.metric)
    gains = {id_: step if one.direction == "up" else -step for id_, step in one.differences.items()}
    ordered = sorted(gains, key=lambda id_: (gains[id_], id_))
    chosen = dict.fromkeys([*ordered[:_SHOWN], *ordered[-_SHOWN:]])
    rows = [
        (
            f"{id_}: {one.metric} {before[id_]:.4g} → {after[id_]:.4g}",
            [small(files.get(id_), _SIDE) for files in shown.values()],
        )
        for id_ in chosen
    ]
    return figures.contact_sheet(rows, list(shown))


def _restored(folder: Path, run: Scored) -> dict[str, Path]:
    """Find a run's restored images: in its own folder, as run --save-images keeps them, or directly in this one."""
    found = find(own if (own := folder / run.record.stem).is_dir() else folder)
    if not found.keys() & run.rows.keys():
        raise RecordError(f"holds no image that is named as one of {run.record.dataset.name}.", subject=folder)
    return found


def _between(
    shown: dict[str, dict[str, Path]], record: Record, dataset: str | None, data_root: Path | None
) -> dict[str, dict[str, Path]]:
    """Put the restored images between the hazy and the clear ones of the data set, if it is here.

    Raises RecordError if it is not the record's.
    """
    from bench import datasets

    if dataset is None or (data_root is None and dataset in datasets.catalogue.names()):
        return shown
    found = datasets.load(dataset, data_root=data_root)
    if found.fingerprint != record.dataset.fingerprint:
        raise RecordError(f"does not hold the images of {record.dataset.name} that were scored.", subject=dataset)
    hazy = {sample.id: sample.hazy for sample in found.samples}
    clear = {sample.id: sample.clear for sample in found.samples if sample.clear}
    return {"hazy": hazy} | shown | ({"clear": clear} if clear else {})


def _draw(found: Sequence[Table], rows: page.Rows, metric: str | None, folder: Path) -> None:
    """Write the figures of every table. Raises UnknownMetricError if a table has no such metric."""
    for table in found:
        for what, figure in page.drawings(table, rows, metric).items():
            for suffix in ("png", "pdf"):
                name = stem(title(table, found), table.column(metric).name, what)
                save_figure(figure, folder / f"{name}.{suffix}")


def save_figure(figure: "Figure", path: Path) -> None:
    """Write a figure in the format of its suffix. Raises RecordError."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=160)
    except (ValueError, OSError) as error:  # matplotlib knows no such suffix, or the disk is full
        raise RecordError(f"cannot be written: {error}.", subject=path) from None
