"""The command line of the harness: bench run | score | speed | visibility | prepare | compare | report | list."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from hashlib import sha256
from itertools import product
from pathlib import Path
from typing import Annotated, Any

import typer
from pydantic import ValidationError
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress
from rich.table import Table

import dehaze
from bench import datasets, metrics, protocol, registration, speed, visibility
from bench.errors import BenchError, MetricError, UsageError, to_json
from bench.methods.archive import unpacked
from bench.methods.predictions import Predictions
from bench.methods.shipped import Model, ablations
from bench.metrics import Metric
from bench.prepare import prepare
from bench.record import Method, Record, Summary, complaints
from bench.report.cli import compare, report
from bench.report.progress import run_shown
from bench.report.table import ARROWS
from bench.schema import Look
from dehaze import outside
from dehaze.errors import DehazeError, UnknownModelError
from dehaze.networks import NETWORKS
from dehaze.outside_code import entry_points
from dehaze.processes import join
from dehaze.terminal import Channels, MultipleOf, ValueRange, escape_unprintable

app = typer.Typer(help=__doc__, no_args_is_help=True, pretty_exceptions_enable=False)
app.callback()(escape_unprintable)
app.command()(compare)
app.command()(report)
out = Console(highlight=False)
err = Console(highlight=False, stderr=True, soft_wrap=True)

DEFAULT_METRICS = ("psnr", "ssim", "ciede2000", "niqe", "fade_refit")

Output = Annotated[Path, typer.Option(help="Folder for the records.", file_okay=False)]
Metrics = Annotated[
    list[str] | None,
    typer.Option("--metric", help=f"May be repeated. Default: {', '.join(DEFAULT_METRICS)}."),
]
ProtocolName = Annotated[
    str | None,
    typer.Option(
        "--protocol", help="How images are resized and scored: see `list protocols`. Default: the data set's."
    ),
]
FadeStats = Annotated[
    Path | None, typer.Option(help="Folder with the statistics files of FADE's release, for the metric fade.")
]
LpipsWeights = Annotated[
    Path | None, typer.Option(help="Safetensors file with the weights of lpips. Default: download them.")
]
Clip = Annotated[
    Path | None, typer.Option(help="Folder of a CLIP model for the metric density, instead of the one that ships.")
]
DataRoot = Annotated[
    Path | None,
    typer.Option(help="Folder that holds data sets of the catalogue. Default: the Hub, if a copy is there."),
]
Paper = Annotated[str | None, typer.Option(help="Where the method is published.")]
License = Annotated[str | None, typer.Option(help="Licence of its weights.")]
TrainedOn = Annotated[list[str] | None, typer.Option(help="Data set it was trained on; may be repeated.")]
Parameters = Annotated[int | None, typer.Option(min=0, help="Number of its parameters.")]
Models = Annotated[
    list[str] | None,
    typer.Option(
        "--model",
        help="A name from list, FILE.py:NAME, package.module:NAME, torchscript:FILE or onnx:FILE; may be repeated. "
        "Default: every model of the project.",
    ),
]
Weights = Annotated[
    str, typer.Option(help="Weights of the one --model: 'shipped', a .safetensors file, a folder, a Hub id.")
]
Tile = Annotated[int | None, typer.Option(help="Side of the tiles in px, 0 for none. Default: chosen by the model.")]
LookName = Annotated[
    Look,
    typer.Option(
        "--look",
        help="faithful: the scene at the photograph's exposure, as clear images of pairs have it. "
        "photo: exposed as a camera would have exposed the clear view.",
    ),
]
Amount = Annotated[
    float | None, typer.Option(min=0, max=1, help="Amount of this adjustment, 0 for none. Default: the look's own.")
]
SetName = Annotated[str | None, typer.Option("--name", help="Name of the folder's data set in the record.")]
Resume = Annotated[bool, typer.Option(help="Continue an unfinished run; leave a finished one as it is.")]


@app.command()
def run(
    output: Output,
    models: Models = None,
    sets: Annotated[
        list[str] | None,
        typer.Option("--dataset", help="A name from list, folder:PATH or hub:…; may be repeated. Default: sample."),
    ] = None,
    data_root: DataRoot = None,
    weights: Weights = "shipped",
    multiple_of: MultipleOf = 1,
    tile: Tile = None,
    value_range: ValueRange = "01",
    channels: Channels = "rgb",
    method: Annotated[str | None, typer.Option(help="Name in the record. Default: that of the model.")] = None,
    paper: Paper = None,
    license: License = None,
    trained_on: TrainedOn = None,
    parameters: Parameters = None,
    metric: Metrics = None,
    protocol_name: ProtocolName = None,
    fade_stats: FadeStats = None,
    lpips_weights: LpipsWeights = None,
    clip: Clip = None,
    name: SetName = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Score only the first N images; the record names the set NAME-firstN.")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; default: the best there is.")] = None,
    save_images: Annotated[
        Path | None, typer.Option(help="Folder for the restored images; each record gets a subfolder.", file_okay=False)
    ] = None,
    look: LookName = "faithful",
    skies: Amount = None,
    shadows: Amount = None,
    colour: Amount = None,
    brightness: Amount = None,
    ablate: Annotated[
        bool,
        typer.Option("--ablate", help="Score it also with each of its adjustments alone switched off, and with none."),
    ] = False,
    resume: Resume = True,
) -> None:
    """Restore every image of a data set with a model, and score the results.

    Writes a JSON record and a Parquet file of per-image values for each model and data set. The look photo, and
    adjustments that are not the look's own, become part of the method's name. Started by `accelerate launch` or
    `torchrun`, the processes share the images, each on a GPU of its own, and write the same record.
    """
    with _clean_errors():
        about = {
            "paper": paper,
            "license": license,
            "trained_on": trained_on and (*trained_on,),
            "parameters": parameters,
        }
        about = {name: fact for name, fact in about.items() if fact is not None}
        how = _how(weights, tile, multiple_of, value_range, channels)
        models = _models(models, alone=bool(how or method or about))
        amounts = {"skies": skies, "shadows": shadows, "colour": colour, "brightness": brightness}
        amounts = {name: amount for name, amount in amounts.items() if amount is not None}
        _refuse_outside(models, adjusted=look == "photo" or bool(amounts) or ablate)
        if name is not None and len(sets or []) > 1:
            raise UsageError("--name names one data set, and several are given.", "Run them one by one.")
        loaded = [
            _dataset(spec, name=name, limit=limit, data_root=data_root) for spec in datasets.expand(sets or ["sample"])
        ]
        if len({dataset.name for dataset in loaded}) < len(loaded):
            raise UsageError("Two data sets have the same name.", "Run them one by one, each with its --name.")
        rules = [protocol.get(protocol_name or dataset.protocol) for dataset in loaded]
        wanted = metric or [*DEFAULT_METRICS, *(name for dataset in loaded for name in dataset.metrics)]
        scores, options, missing = _metrics(wanted, fade_stats, lpips_weights, clip)
        processes = join()
        settings = {"options": options, "resume": resume, "pictures": save_images, "processes": processes}
        records = []
        for model in models:
            dehazer = _load(model, processes.device(device), how | {"look": look})
            dehazer = replace(dehazer, adjustments=replace(dehazer.adjustments, **amounts))
            restorers = [Model(one, method, about) for one in (ablations(dehazer) if ablate else [dehazer])]
            records += [
                run_shown(restorer, dataset, rule, scores, output, **settings)
                for dataset, rule in zip(loaded, rules, strict=True)
                for restorer in restorers
            ]
    if processes.is_main:
        _finish(records, output, missing)


@app.command()
def score(
    restored: Annotated[
        Path, typer.Argument(help="Folder of restored images, named as the hazy ones; or a zip archive of it.")
    ],
    output: Output,
    method: Annotated[str, typer.Option(help="Name of the method that made them.")],
    dataset: Annotated[str, typer.Option(help="A name from list, folder:PATH or hub:….")],
    data_root: DataRoot = None,
    metric: Metrics = None,
    protocol_name: ProtocolName = None,
    fade_stats: FadeStats = None,
    lpips_weights: LpipsWeights = None,
    clip: Clip = None,
    name: SetName = None,
    paper: Paper = None,
    license: License = None,
    trained_on: TrainedOn = None,
    parameters: Parameters = None,
    resume: Resume = True,
    json_errors: Annotated[bool, typer.Option("--json-errors", help="Print an error's fields as JSON.")] = False,
) -> None:
    """Score images that another program restored, in the same way as `run` does."""
    with _clean_errors(json_errors):
        if not method.strip():
            raise UsageError("The method has no name.", "Give one with --method.")
        samples = _dataset(dataset, name=name, data_root=data_root)
        rules = protocol.get(protocol_name or samples.protocol)
        wanted = metric or [*DEFAULT_METRICS, *samples.metrics]
        scores, options, missing = _metrics(wanted, fade_stats, lpips_weights, clip)
        about = Method(
            name=method, parameters=parameters, license=license, paper=paper, trained_on=tuple(trained_on or ())
        )
        with unpacked(restored, samples) as folder:
            restorer = Predictions(folder, samples, rules, about)
            processes = join()
            record = run_shown(
                restorer, samples, rules, scores, output, options=options, resume=resume, processes=processes
            )
    if processes.is_main and record is not None:
        _finish([record], output, missing)


@app.command("speed")
def speed_(
    models: Models = None,
    weights: Weights = "shipped",
    multiple_of: MultipleOf = 1,
    tile: Tile = None,
    value_range: ValueRange = "01",
    channels: Channels = "rgb",
    megapixels: Annotated[
        list[float] | None,
        typer.Option(
            min=0.001, help=f"May be repeated. Default: {', '.join(f'{size:g}' for size in speed.MEGAPIXELS)}."
        ),
    ] = None,
    look: LookName = "faithful",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, mps; default: the best there is.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16; default: by the device.")] = None,
    threads: Annotated[int | None, typer.Option(min=1, help="CPU threads; default: as torch chooses.")] = None,
    photo: Annotated[
        Path, typer.Option(help="Photograph to restore, at each size.", exists=True, dir_okay=False)
    ] = speed.PHOTO,
    runs: Annotated[int, typer.Option(min=3, help="Maximum of timed runs for each row.")] = speed.Job.runs,
    seconds: Annotated[float, typer.Option(min=0, help="Start no run after so many seconds.")] = speed.Job.seconds,
    output: Annotated[Path | None, typer.Option(help="A .json or .csv file for the rows.", dir_okay=False)] = None,
) -> None:
    """Measure seconds, multiply-adds and memory of models by the size of the photograph.

    Each row is measured in a process of its own: what fails costs one row.
    """
    sizes = sorted(set(megapixels or speed.MEGAPIXELS))
    costs: list[speed.Cost] = []
    with _clean_errors():
        how = _how(weights, tile, multiple_of, value_range, channels)
        models = _models(models, alone=bool(how))
        _refuse_outside(models, adjusted=look == "photo")
        if output is not None:
            speed.check_name(output)
        with Progress(console=err, transient=True) as progress:
            task = progress.add_task("", total=len(models) * len(sizes))
            for model, size in product(models, sizes):
                progress.update(task, description=f"{escape(model)}, {size:g} megapixels")
                job = speed.Job(model, size, photo, device, dtype, threads, runs, seconds, look=look, **how)
                costs.append(speed.measure_apart(job))
                if output is not None:
                    speed.write(output, costs)
                progress.advance(task)
    Console(width=1000).print(speed.table(costs))
    failed = [cost for cost in costs if cost.failure]
    for cost in failed:
        err.print(f"[red]failed:[/red] {escape(f'{cost.model}, {cost.megapixels:g} megapixels: {cost.failure}')}")
    if failed:
        raise typer.Exit(1)


@app.command("list")
def list_(
    kind: Annotated[str | None, typer.Argument(help="models, datasets, metrics or protocols. Default: all.")] = None,
) -> None:
    """List models, data sets, protocols and metrics; for metrics, also say whether they are ready or what they need."""
    with _clean_errors():
        if kind not in (None, "models", "datasets", "metrics", "protocols"):
            raise UsageError(f"There is no list of {kind!r}; there are models, datasets, metrics, protocols.")
    table = Table("", "name", "", "needs", "what it is", box=None, padding=(0, 2, 0, 0))
    if kind in (None, "models"):
        for name in dehaze.list_models():
            table.add_row("model", name)
        for name, target in entry_points().items():
            table.add_row("model", escape(name), "", "", escape(f"from outside: {target}"))
    if kind in (None, "datasets"):
        for name, summary in datasets.summaries().items():
            table.add_row("data set", escape(name), "", "", escape(summary))
    if kind in (None, "metrics"):
        for name in metrics.names():
            spec, needs = metrics.spec(name), metrics.lacking(name) or "ready"
            table.add_row("metric", name, ARROWS[spec.direction], needs, escape(spec.definition))
    if kind in (None, "protocols"):
        for name in protocol.names():
            table.add_row("protocol", name, "", "", escape(protocol.get(name).definition))
    out.print(table)


@app.command("visibility")
def visibility_(
    frames: Annotated[Path, typer.Argument(help="Folder with index.csv: file, visibility_m.", file_okay=False)],
    meter: Annotated[
        list[str] | None,
        typer.Option(help="A model that estimates a density, or a metric of one image. May be repeated."),
    ] = None,
    fade_stats: FadeStats = None,
    clip: Clip = None,
) -> None:
    """Show how well densities tell the visibility that was measured on site: Spearman's rank correlation.

    By default: the density of api, and that of CLIP.
    """
    with _clean_errors():
        found = visibility.read_frames(frames)
        meters = visibility.make_meters(_once(meter or ("api", "density")), fade_stats=fade_stats, clip=clip)
        with Progress(console=err, transient=True) as progress:
            readings = list(progress.track(visibility.measure(found, meters), total=len(found)))
    table = Table("meter", "ρ with visibility", "95 % interval", "frames", box=None)
    for name in meters:
        rank = visibility.agreement([reading[name] for reading in readings], [frame.metres for frame in found])
        table.add_row(escape(name), f"{rank.rho:.3f}", f"{rank.low:.3f} to {rank.high:.3f}", str(rank.frames))
    out.print(table)


@app.command("prepare")
def prepare_(
    name: Annotated[str, typer.Argument(help="A data set of the catalogue, folder:PATH, or metric:NAME: see list.")],
    source: Annotated[
        Path | None,
        typer.Option("--from", help="Folder of the set as it was downloaded; or file of a metric's weights."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for the copy. Default: the set's name, here.", file_okay=False)
    ] = None,
    register: Annotated[
        bool, typer.Option("--register", help="Shift the pairs of folder:PATH, from a fixed camera, onto each other.")
    ] = False,
) -> None:
    """Check a downloaded data set against the catalogue, and copy it to a folder that every loader reads.

    With metric:NAME: download the weights of the metric, or copy them from --from FILE, check them, and store them in
    the cache. With folder:PATH --register: find by how many pixels the clear images of a fixed camera are shifted,
    and write what both of each pair show.
    """
    metric = name.removeprefix("metric:")
    if metric != name:
        with _clean_errors():
            metrics.prepare(metric, source)
        out.print(f"{escape(metric)} is ready")
        return
    folder = name.removeprefix("folder:")
    if register or folder != name:
        with _clean_errors():
            if not register or folder == name or output is None:
                raise UsageError("A folder is prepared by folder:PATH --register --output DIR.")
            shifts = registration.register(Path(folder), output)
        for id_, shift in shifts.items():
            moved = f"{shift.down:+d} px down, {shift.right:+d} px right, correlation {shift.correlation:.3f}"
            out.print(f"{escape(id_)}: {moved}", soft_wrap=True)
        return
    output = output or Path(name)
    with _clean_errors():
        if source is None:
            raise UsageError(f"{name} is copied from a download.", "Name its folder with --from.")
        made = prepare(name, source, output)
    for note in made.notes:
        err.print(escape(note))
    out.print(
        f"{escape(made.name)}: {len(made.samples)} images, {made.pairs} pairs, fingerprint {made.fingerprint[:12]}, "
        f"in {escape(str(output))}",
        soft_wrap=True,
    )


@contextmanager
def _clean_errors(as_json: bool = False) -> Iterator[None]:
    """Turn errors raised on purpose into one line, of JSON for programs, and Ctrl-C into a word on how to go on.

    Exit with 2 for wrong usage and unknown names, with 130 for Ctrl-C, else with 1.
    """
    try:
        yield
    except (BenchError, DehazeError, ValidationError) as caught:
        # A name or a number that no record may hold is wrong usage.
        error = UsageError(f"{complaints(caught)}.") if isinstance(caught, ValidationError) else caught
        if as_json:
            typer.echo(to_json(error))
        else:
            err.print(f"[red]error:[/red] {escape(str(error))}")
        raise typer.Exit(2 if isinstance(error, UsageError | UnknownModelError) else 1) from None
    except KeyboardInterrupt:
        err.print("Stopped. What is done is kept: the same command continues where it was.")
        raise typer.Exit(130) from None


def _once(names: Iterable[str]) -> list[str]:
    return list(dict.fromkeys(names))


def _dataset(spec: str, **options: Any) -> datasets.Dataset:
    dataset = datasets.load(spec, **options)
    for note in dataset.notes:
        err.print(escape(note))
    return dataset


def _models(typed: list[str] | None, alone: bool) -> list[str]:
    """Return the models to run. Raises for an unknown one, before any hours are spent, and for several if `alone`."""
    models = _once(typed or dehaze.list_models())
    if len(models) > 1 and alone:
        raise UsageError("--weights and --method are of one model, and so is what describes it.", "Give one --model.")
    for model in models:
        if not outside.is_outside(model):
            NETWORKS.get(model)
    return models


def _how(weights: str, tile: int | None, multiple_of: int, value_range: str, channels: str) -> dict[str, Any]:
    """Return how a model is loaded, where that is not as by default."""
    try:
        how = {"weights": weights, "tile": tile, "interface": outside.Interface(multiple_of, value_range, channels)}
    except ValueError as error:
        raise UsageError(f"{error}.") from None
    default = {"weights": "shipped", "tile": None, "interface": outside.Interface()}
    return {name: value for name, value in how.items() if value != default[name]}


def _refuse_outside(models: list[str], adjusted: bool) -> None:
    """Raise UsageError if results of a model from outside are to be adjusted."""
    for model in models:
        if adjusted and outside.is_outside(model):
            raise UsageError(
                f"{model} is a model from outside, and its results are scored as they are.",
                "Leave --look, --ablate and amounts of adjustments out.",
            )


def _load(model: str, device: str | None, how: dict[str, Any]) -> dehaze.Dehazer:
    try:
        return outside.load(model, device=device, **how)
    except ValueError as error:  # a device that is not there
        raise UsageError(str(error)) from None


def _metrics(
    names: list[str], fade_stats: Path | None, lpips_weights: Path | None, clip: Path | None
) -> tuple[dict[str, Metric], dict[str, str], list[MetricError]]:
    """Make the metrics; return them, the hashes of the files they were made from, and why some cannot be had.

    A metric without its weights or statistics is left out; the others are still worth the run.
    """
    names = _once(names)
    for name in names:
        metrics.spec(name)  # a misspelt name is refused; a metric that is not ready is left out
    given = {"fade_stats": fade_stats, "lpips_weights": lpips_weights, "clip": clip}
    options = {}
    for name, (option, path) in zip(("fade", "lpips", "density"), given.items(), strict=True):
        if path is not None:
            if name not in names:
                raise UsageError(f"--{option.replace('_', '-')} is for the metric {name}.", f"Add --metric {name}.")
            if not path.exists():
                raise UsageError(f"does not exist; --{option.replace('_', '-')} names it.", subject=path)
            options[option] = _hash(path)
    scores, missing = {}, []
    for name in names:
        try:
            scores[name] = metrics.get(name, **given)
        except MetricError as error:
            missing.append(error)
    if not scores:
        raise missing[0]
    return scores, options, missing


def _hash(path: Path) -> str:
    """Hash a file, or the files directly in a folder."""
    digest = sha256()
    for file in sorted(path.iterdir()) if path.is_dir() else [path]:
        if file.is_file():
            digest.update(file.read_bytes())
    return digest.hexdigest()


def _finish(records: list[Record], output: Path, missing: list[MetricError]) -> None:
    """Print what came out; exit with 1 if an image failed or a metric could not be had."""
    names = _once([name for record in records for name in record.metrics])
    table = Table("method", "data set", "images", *names, "seconds", "failed", box=None, padding=(0, 2, 0, 0))
    for record in records:
        table.add_row(
            escape(record.method.name),
            escape(record.dataset.name),
            str(record.dataset.samples),
            *(_mean(record.metrics.get(name)) for name in names),
            f"{record.speed.seconds_median:.3g}" if record.speed else "",
            str(len({failure.id for failure in record.failures})),
        )
    Console(width=1000).print(table)  # a narrow terminal breaks lines; a name cut short would be worse
    out.print(f"{len(records)} record{'s' * (len(records) > 1)} in {escape(str(output))}", soft_wrap=True)
    for record in records:
        if record.tiled:
            place = f"{record.method.name} on {record.dataset.name}"
            err.print(f"{escape(place)}: {len(record.tiled)} images restored in tiles, for memory did not suffice")
    for error in missing:
        err.print(f"[red]metric left out:[/red] {escape(str(error))}")
    failures = [(record, failure) for record in records for failure in record.failures]
    for record, failure in failures:
        place = f"{record.method.name} on {record.dataset.name}, {failure.id}"
        err.print(f"[red]failed:[/red] {escape(f'{place}: {failure.stage}: {failure.reason}')}")
    if missing or failures:
        raise typer.Exit(1)


def _mean(summary: Summary | None) -> str:
    if summary is None:
        return ""
    if summary.mean is None:
        return "∞" if summary.infinite else "–"
    return f"{summary.mean:.4g}"
