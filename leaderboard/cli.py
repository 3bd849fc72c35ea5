"""The command line of the leaderboard: leaderboard table | figure | figures | card | pull | submit | publish."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Annotated, NoReturn

import typer

from bench.errors import BenchError, RecordError, UsageError
from bench.record import RESULTS, select, write_atomic
from bench.report import figures as drawings
from bench.report.cli import report, save_figure
from bench.report.escape import escape_unprintable, visible
from bench.report.table import Table, tables
from leaderboard import figures, hub, scoring, submission
from leaderboard.card import with_figures

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
app.callback()(escape_unprintable)
app.command("table")(report)

Results = Annotated[Path, typer.Option(help="Folder of records.", show_default="the project's own")]
DatasetName = Annotated[str | None, typer.Option("--dataset", help="Only this data set.")]
ProtocolName = Annotated[str | None, typer.Option("--protocol", help="Only this protocol.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would be sent, and send nothing.")]


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
        _fail(f"{len(chosen)} tables fit ({titles}). Choose one with --protocol, or a folder of records of one set.", 2)
    with _clean_errors():
        save_figure(drawings.quality_against_speed(chosen[0], metric), output)
    _finish(broken)


@app.command("figures")
def figures_(
    check: Annotated[bool, typer.Option("--check", help="Write nothing; exit with 1 if a table is stale.")] = False,
    results: Results = RESULTS,
) -> None:
    """Write every table of figures in README, docs and cards from the records.

    A table stands between the lines <!-- figures: NAME --> and <!-- /figures -->. NAME is reference, no-reference,
    speed, or card MODEL.
    """
    with _clean_errors():
        records, broken = select(results)
        if broken:
            raise broken[0]
        changed = figures.stale(figures.documents(), list(records.values()))
        for path, text in changed.items():
            typer.echo(f"{'stale' if check else 'written'}: {path.relative_to(figures.REPOSITORY)}", err=check)
            if not check:
                write_atomic(path, text.encode())
    if check and changed:
        typer.echo("error: run 'python -m leaderboard figures' to write them", err=True)
        raise typer.Exit(1)


@app.command()
def card(
    model: Annotated[str, typer.Argument(help="Name of the model in the records.")],
    weights: Annotated[
        Path | None,
        typer.Option(help="Folder of its weights and card.", show_default="those that ship", file_okay=False),
    ] = None,
    results: Results = RESULTS,
) -> None:
    """Print a model's card with the figures of its records: `… card api | python -m dehaze push api --card - …`."""
    with _clean_errors():
        records, _ = select(results)
        typer.echo(with_figures(model, list(records.values()), weights), nl=False)


@app.command()
def pull(
    source: Annotated[str, typer.Option("--from", help="The results data set ORG/NAME on the Hub.")],
    results: Results = RESULTS,
    revision: Annotated[str | None, typer.Option(help="Branch or commit; refs/pr/1 for a pull request.")] = None,
) -> None:
    """Fetch the records of a results data set; newer ones replace those here, and nothing is deleted."""
    with _clean_errors():
        taken = hub.pull(source, results, revision)
    for name, (change, reason) in taken.items():
        if change != "unchanged":
            typer.echo(visible(f"{change}: {name}" + (f" ({reason})" if reason else "")), err=change == "refused")
    typer.echo(f"{len(taken)} records in {source}")
    if any(change == "refused" for change, _ in taken.values()):
        raise typer.Exit(1)


@app.command()
def submit(
    what: Annotated[
        Path, typer.Argument(help="A record (.json, its .parquet beside it); or predictions: a folder or a .zip.")
    ],
    to: Annotated[str | None, typer.Option(help="The results data set ORG/NAME on the Hub.")] = None,
    dry_run: DryRun = False,
    results: Results = RESULTS,
    dataset: Annotated[
        str | None, typer.Option(help="Data set that was restored; see `python -m bench list datasets`.")
    ] = None,
    protocol: Annotated[
        str, typer.Option(help="How predictions are scored; see `python -m bench list protocols`.")
    ] = "native-v1",
    method: Annotated[str | None, typer.Option(help="Name of the method that made the predictions.")] = None,
    paper: Annotated[str | None, typer.Option(help="Where the method is published.")] = None,
    license: Annotated[str | None, typer.Option(help="Licence of its weights.")] = None,
    trained_on: Annotated[list[str] | None, typer.Option(help="Data set it was trained on; may be repeated.")] = None,
    parameters: Annotated[int | None, typer.Option(min=0, help="Number of its parameters.")] = None,
    data_root: Annotated[Path | None, typer.Option(help="Folder that holds the data sets of the catalogue.")] = None,
) -> None:
    """Check a record, or score and check predictions, and propose them to the results data set as a pull request."""
    if to is None and not dry_run:
        _fail("Nobody is named to submit to. Give --to ORG/NAME, or --dry-run.", 2)
    with _clean_errors(), TemporaryDirectory() as folder:
        if what.suffix.lower() != ".json":
            if not (dataset and method):
                _fail("Predictions are scored first. Say with --dataset what they are of, and with --method whose.", 2)
            about = scoring.describe(
                name=method, paper=paper, license=license, trained_on=tuple(trained_on or ()), parameters=parameters
            )
            what = scoring.score(what, dataset, protocol, about, Path(folder), data_root)
        found = submission.check(what, results)
        for finding in found.findings:
            typer.echo(f"{finding.verdict:>5}  {finding.subject}: {visible(finding.text)}")
        record = found.accepted
        if record is None:
            _fail("Nothing was sent. Correct what is wrong.")
        if dry_run or to is None:  # None was refused above, unless this is a dry run
            for path, data in hub.files(what, record).items():
                typer.echo(f"{len(data):>12,}  {path}")
            typer.echo("Nothing was sent.")
        else:
            typer.echo(hub.propose(what, record, to, found.markdown()))


@app.command()
def publish(
    to: Annotated[str, typer.Option(help="The results data set ORG/NAME on the Hub; made if it is not there.")],
    model: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=ORG/NAME", help="Model repository that gets its figures; may be repeated."),
    ] = None,
    results: Results = RESULTS,
    pull_request: Annotated[bool, typer.Option("--pull-request", help="Propose instead of writing.")] = False,
    dry_run: DryRun = False,
) -> None:
    """Send all records to the results data set; with --model, also write scores (`.eval_results`) to its repository."""
    with _clean_errors():
        records, broken = select(results)
        if broken:
            raise broken[0]
        sent = [(to, "dataset", hub.contents(results), f"{len(records)} records")]
        for text in model or ():
            name, _, repo = text.partition("=")
            if not repo:
                _fail(f"--model {text} is not NAME=ORG/NAME, such as api=org/dehaze-api.", 2)
            content = hub.evaluations(name, list(records.values()), to)
            sent.append((repo, "model", content, "Evaluation results"))
        for repo, kind, content, message in sent:
            if dry_run:
                for path, data in content.items():
                    typer.echo(f"{len(data):>12,}  {repo}/{path}")
            else:
                typer.echo(hub.publish(repo, kind, content, message, pull_request))
        if dry_run:
            typer.echo("Nothing was sent.")


@contextmanager
def _clean_errors() -> Iterator[None]:
    """Turn errors raised on purpose into one line; exit with 2 for wrong usage, else with 1."""
    try:
        yield
    except BenchError as error:
        _fail(str(error), 2 if isinstance(error, UsageError) else 1)


def _choose(results: Path, dataset: str | None, protocol: str | None) -> tuple[list[Table], list[RecordError]]:
    """Return the tables asked for and what cannot be read; end the command if there is no table."""
    with _clean_errors():
        records, broken = select(results, dataset, protocol)
    return tables(records.values()), broken


def _finish(broken: list[RecordError]) -> None:
    for error in broken:
        typer.echo(visible(f"left out: {error}"), err=True)
    if broken:
        raise typer.Exit(1)


def _fail(message: str, code: int = 1) -> NoReturn:
    typer.echo(visible(f"error: {message}"), err=True)
    raise typer.Exit(code)
