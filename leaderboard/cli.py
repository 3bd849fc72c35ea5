"""The command line of the leaderboard: leaderboard table | figure."""

from enum import StrEnum
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from bench.errors import RecordError
from bench.record import RESULTS, select
from bench.report import figures
from bench.report.render import FORMATS
from bench.report.table import Table, tables

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)

Format = StrEnum("Format", list(FORMATS))
Results = Annotated[Path, typer.Option(help="Folder of records.", show_default="the project's own")]
DatasetName = Annotated[str | None, typer.Option("--dataset", help="Only this data set.")]
ProtocolName = Annotated[str | None, typer.Option("--protocol", help="Only this protocol.")]


@app.command()
def table(
    results: Results = RESULTS,
    dataset: DatasetName = None,
    protocol: ProtocolName = None,
    format: Annotated[Format, typer.Option(help="How to print.")] = Format("md"),
) -> None:
    """Print a table for each data set under each protocol."""
    chosen, broken = _choose(results, dataset, protocol)
    typer.echo(FORMATS[format](chosen))
    _finish(broken)


@app.command()
def figure(
    output: Annotated[Path, typer.Option(help="File to write: .png, .svg or .pdf.", dir_okay=False)],
    dataset: Annotated[str, typer.Option(help="The data set.")],
    results: Results = RESULTS,
    protocol: ProtocolName = None,
    metric: Annotated[str | None, typer.Option(help="Default: the table's first metric.")] = None,
) -> None:
    """Draw quality against speed for one data set."""
    chosen, broken = _choose(results, dataset, protocol)
    if len(chosen) > 1:
        titles = "; ".join(found.title for found in chosen)
        _fail(f"{len(chosen)} tables fit ({titles}): choose one with --protocol, or a folder of records of one set")
    try:
        figures.quality_against_speed(chosen[0], metric).savefig(output, dpi=160)
    except (ValueError, OSError) as error:
        _fail(f"no figure: {error}")
    _finish(broken)


def _choose(results: Path, dataset: str | None, protocol: str | None) -> tuple[list[Table], list[RecordError]]:
    """Return the tables asked for and what cannot be read; end the command if there is no table."""
    try:
        records, broken = select(results, dataset, protocol)
    except RecordError as error:
        _fail(str(error))
    return tables(records.values()), broken


def _finish(broken: list[RecordError]) -> None:
    for error in broken:
        typer.echo(f"left out: {error}", err=True)
    if broken:
        raise typer.Exit(1)


def _fail(message: str) -> NoReturn:
    typer.echo(f"error: {message}", err=True)
    raise typer.Exit(2)
