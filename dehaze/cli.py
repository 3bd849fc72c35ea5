"""The command line: `python -m dehaze run | density | list | info | push | haze | convert | train`."""

import time
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer
from rich.console import Console
from rich.progress import Progress
from rich.table import Column, Table

from dehaze.adjust import MAX_STRENGTH, MIN_STRENGTH
from dehaze.convert import convert
from dehaze.errors import DehazeError
from dehaze.haze.cli import haze
from dehaze.terminal import (
    Channels,
    MultipleOf,
    ValueRange,
    as_markup,
    complaints,
    console,
    escape_unprintable,
    reported_errors,
)
from dehaze.training.cli import train

if TYPE_CHECKING:
    import torch

    from dehaze.batch import Plan, Seconds
    from dehaze.dehazer import Dehazer

app = typer.Typer(
    help="Remove haze from photographs.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
app.command()(haze)
app.command()(convert)
app.command()(train)

Amount = float | None
_BY_LOOK = "Default: by the look."
Weights = Annotated[
    str, typer.Option(help="'shipped', a .safetensors file, a folder, or a Hub id org/name[@revision].")
]


app.callback()(escape_unprintable)


@app.command()
def run(
    photos: Annotated[
        list[str],
        typer.Argument(help="Photographs, clips, folders of photographs, or globs in quotes.", metavar="FILE…"),
    ],
    output: Annotated[
        str | None,
        typer.Option(
            help="A file for one input, a folder for many. Default: NAME_dehazed beside each input.",
            metavar="PATH",
        ),
    ] = None,
    model: Annotated[
        str, typer.Option(help="See `list`; or FILE.py:NAME, package.module:NAME, torchscript:FILE, onnx:FILE.")
    ] = "api",
    weights: Weights = "shipped",
    multiple_of: MultipleOf = 1,
    value_range: ValueRange = "01",
    channels: Channels = "rgb",
    look: Annotated[
        Literal["photo", "faithful"] | None,
        typer.Option(
            help="photo: as bright as a camera would have taken the clear view. faithful: as bright as this photograph "
            "was taken. Default: photo."
        ),
    ] = None,
    strength: Annotated[
        float,
        typer.Option(
            min=MIN_STRENGTH,
            max=MAX_STRENGTH,
            help="0 keeps the input, 1 restores it fully, more removes more haze; below 0, haze is added.",
        ),
    ] = 1.0,
    skies: Annotated[Amount, typer.Option(min=0, max=1, help=f"How smooth skies and fog stay. {_BY_LOOK}")] = None,
    shadows: Annotated[Amount, typer.Option(min=0, max=1, help=f"How far shadows are kept open. {_BY_LOOK}")] = None,
    colour: Annotated[
        Amount, typer.Option(min=0, max=1, help=f"How much of the haze's colour cast is taken out. {_BY_LOOK}")
    ] = None,
    brightness: Annotated[
        Amount, typer.Option(min=0, max=1, help=f"How far the result is brightened as a camera would. {_BY_LOOK}")
    ] = None,
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: the best there is.")] = None,
    dtype: Annotated[str | None, typer.Option(help="float32, bfloat16 or float16.")] = None,
    tile: Annotated[
        int | None, typer.Option(help="Side of the tiles in px, 0 for none. Default: chosen by the model.")
    ] = None,
    fast: Annotated[
        bool,
        typer.Option("--fast", help="Restore a copy of 1 megapixel and carry the result over to the full photograph."),
    ] = False,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="Refuse larger photographs.")] = 60.0,
    strip_metadata: Annotated[
        bool,
        typer.Option("--strip-metadata", help="Write no EXIF (place, date, camera), XMP, IPTC or text."),
    ] = False,
    skip_existing: Annotated[
        bool, typer.Option("--skip-existing", help="Skip what has a result already, to continue a stopped run.")
    ] = False,
    timing: Annotated[
        bool, typer.Option("--timing", help="Print the seconds of decoding, network and encoding.")
    ] = False,
) -> None:
    """Restore photographs and clips. Failures are reported at the end; they do not stop the others.

    Started by `accelerate launch` or `torchrun`, the processes share the photographs, each on a GPU of its own.
    """
    from dehaze import outside
    from dehaze.batch import plan, restore_photos
    from dehaze.clips import plan_clips, restore_clips, split_clips
    from dehaze.processes import join

    clips, earlier, photos = split_clips(photos)

    def prepare() -> "tuple[Plan, dict[Path, Path]]":
        found = plan(photos, output, skip_existing)
        clip_targets = plan_clips(clips, output, skip_existing, alone=not photos)
        _prepare_folders(found.folders | {target.parent for target in clip_targets.values()})
        return replace(found, results=[*found.results, *earlier]), clip_targets

    with reported_errors():
        processes = join()
        given, clip_targets = processes.choose(prepare)
        clip_share = dict(list(clip_targets.items())[processes.index :: processes.count])
        share = given.photos[processes.index :: processes.count]
        interface = outside.Interface(multiple_of, value_range, channels)
        dehazer = outside.load(model, weights, processes.device(device), dtype, tile, fast, interface, look)
        amounts = {"skies": skies, "shadows": shadows, "colour": colour, "brightness": brightness}
        dehazer = _adjusted(dehazer, {name: amount for name, amount in amounts.items() if amount is not None})
    if processes.is_main:
        _report_skipped(given)
        if done := len(clips) - len(clip_targets):
            _print(complaints, f"skipped {done} clip{'s' * (done != 1)} whose result exists")
    began = time.perf_counter()
    failures = [_failure(*failed) for failed in restore_clips(clip_share, dehazer, strength, strip_metadata)]
    spent: list[Seconds] = []
    outcomes = restore_photos(dehazer, share, given, strength, max_megapixels, strip_metadata)
    silent = len(share) <= 1 or not processes.is_main
    with Progress(console=complaints, disable=silent, transient=True) as progress:
        for outcome in progress.track(outcomes, len(share), description=f"{as_markup(model)} on {dehazer.device}"):
            spent.append(outcome.seconds)
            if outcome.error is not None:
                failures.append(_failure(outcome.file, outcome.error))
                continue
            (width, height), seconds = outcome.size, outcome.seconds.network
            _print(console, f"{as_markup(outcome.written)}  {width}×{height}  {seconds:.2f} s")
            for note in outcome.notes:
                _print(complaints, f"note: {as_markup(outcome.file)}: {as_markup(note)}")
    if timing:
        decode, network, encode = (sum(stage) for stage in zip(*spent, strict=True)) if spent else (0, 0, 0)
        _print(
            console,
            f"decode {decode:.1f} s, network {network:.1f} s, encode {encode:.1f} s; together "
            f"{time.perf_counter() - began:.1f} s, one by one {decode + network + encode:.1f} s",
        )
    for failure in failures:
        _print(complaints, f"[red]failed:[/] {as_markup(failure)}")
    if failures:
        _print(complaints, f"{len(failures)} of {len(share) + len(clip_share)} failed")
    with reported_errors():
        if any(processes.gather(bool(failures))):  # no process ends before the others, or the launcher would end these
            raise typer.Exit(1)


def _adjusted(dehazer: "Dehazer", amounts: dict[str, float]) -> "Dehazer":
    """Replace amounts of the look's adjustments."""
    if amounts and dehazer.look is None:
        raise ValueError(
            f"{dehazer.name} is a model from outside, whose results are not adjusted: leave --{next(iter(amounts))} out"
        )
    return replace(dehazer, adjustments=replace(dehazer.adjustments, **amounts))


def _report_skipped(given: "Plan") -> None:
    """Say what was found and is not restored."""
    if given.results:
        _print(
            complaints,
            f"skipped {_count(given.results, 'result')} of earlier runs, such as {as_markup(given.results[0])}; "
            "give a file by its name to restore it again",
        )
    if given.done:
        _print(complaints, f"skipped {_count(given.done, 'photograph')} whose result exists")
    if given.others:
        some = ", ".join(map(str, given.others[:5])) + (" …" if len(given.others) > 5 else "")
        some = as_markup(some)
        _print(complaints, f"skipped {_count(given.others, 'file')} without the suffix of a photograph: {some}")


def _count(files: list[Path], noun: str) -> str:
    return f"{len(files)} {noun}{'s' * (len(files) != 1)}"


def _failure(file: Path, error: Exception) -> str:
    import torch

    if isinstance(error, DehazeError):
        return str(error)
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return f"{file} needs more memory than there is. Give a smaller --tile."
    reason = str(error).partition("\n")[0] or type(error).__name__
    if isinstance(error, RuntimeError):  # torch has no class of its own for the memory of CPUs
        return f"{file} cannot be restored: {reason}. A smaller --tile needs less memory."
    return f"{file} cannot be restored ({type(error).__name__}: {reason})."


def _print(to: Console, text: str) -> None:
    """Print a line of a batch, which goes on if nobody reads it (`| head`) or the disk of a log is full."""
    with suppress(OSError, SystemExit):  # rich exits when a pipe is closed
        to.print(text)


def _prepare_folders(folders: set[Path]) -> None:
    """Make the folders for the results, and remove the unfinished files of killed runs from them."""
    from dehaze.errors import OutputError
    from dehaze.io.files import remove_abandoned

    for folder in folders:
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise OutputError(
                f"cannot be made a folder: {error.strerror}.", "Choose another output.", subject=folder
            ) from error
        remove_abandoned(folder)


@app.command()
def density(
    photos: Annotated[list[str], typer.Argument(help="Photographs, folders, or globs in quotes.", metavar="PHOTO…")],
    output: Annotated[
        Path | None, typer.Option(help="A folder, or a .png file for one photograph. Default: beside each photograph.")
    ] = None,
    model: Annotated[str, typer.Option(help="One that estimates a density: see `list`.")] = "api",
    weights: Weights = "shipped",
    device: Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1, mps. Default: the best there is.")] = None,
    max_megapixels: Annotated[float, typer.Option(min=0.001, help="Refuse larger photographs.")] = 60.0,
) -> None:
    """Estimate haze density: print its mean, from 0 (clear) to 1, and write its map as NAME_haze_density.png."""
    from dehaze import load
    from dehaze.batch import plan
    from dehaze.density_map import choose_targets, estimate, write_map
    from dehaze.io.photo import read_photo

    with reported_errors():
        given = plan(photos)
        targets = choose_targets(given.photos, output)
        _prepare_folders({target.parent for target in targets.values()})
        dehazer = load(model, weights, device)
    _report_skipped(given)
    failures = []
    for file, target in targets.items():
        try:
            found = estimate(dehazer, read_photo(file, max_megapixels=max_megapixels))
            write_map(found, target)
        except Exception as error:  # of one photograph, whatever it is
            failures.append(_failure(file, error))
            continue
        _print(console, f"{as_markup(file)}  mean density {found.mean():.3f}  {as_markup(target)}")
    for failure in failures:
        _print(complaints, f"[red]failed:[/] {as_markup(failure)}")
    if failures:
        raise typer.Exit(1)


@app.command("list")
def list_() -> None:
    """List the models."""
    from dehaze import list_models
    from dehaze.hub import load_network
    from dehaze.outside_code import entry_points

    table = Table("model", "parameters", "license", "what it does", box=None)
    for name in list_models():
        with reported_errors():
            network, weights = load_network(name, "shipped")
        count = sum(parameter.numel() for parameter in network.parameters())
        license_ = weights.card.get("license", "") if weights else "no weights"
        table.add_row(name, f"{count:,}", license_, _summary(network))
    for name, target in entry_points().items():
        table.add_row(as_markup(name), "", "", as_markup(f"from outside: {target}"))
    console.print(table, soft_wrap=False)


@app.command()
def info(
    name: Annotated[str, typer.Argument(help="See `list`.")],
    weights: Weights = "shipped",
) -> None:
    """Show the size, cost, weights and card of a model."""
    from dehaze.hub import CARD_FILE, load_network
    from dehaze.networks.base import PredictsMaps

    with reported_errors():
        network, found = load_network(name, weights)
    table = Table(Column(), Column(overflow="fold"), box=None, show_header=False)
    table.add_row("model", name)
    table.add_row("what it does", _summary(network))
    table.add_row("parameters", f"{sum(parameter.numel() for parameter in network.parameters()):,}")
    for patches, count in _costs(network):
        table.add_row("multiply-adds", f"{count / 1e9:.2f} G in convolutions and matrix products, 256×256{patches}")
    table.add_row("sizes", f"any; padded to multiples of {network.multiple_of} px")
    if network.tile_size:
        how = "by maps of a reduced copy" if isinstance(network, PredictsMaps) else "in tiles"
        table.add_row("large photographs", f"{how} above {network.tile_size**2 / 1e6:.1f} megapixels")
    if found:
        table.add_row("weights", as_markup(found.file))
        table.add_row("sha256", found.sha256)
        for key in ("license", "paper", "datasets", "tags"):
            if (value := found.card.get(key)) is not None:
                table.add_row(key, as_markup(", ".join(value) if isinstance(value, list) else value))
        table.add_row("card", as_markup(found.file.with_name(CARD_FILE)))
    console.print(table, soft_wrap=False)


@app.command()
def push(
    name: Annotated[str, typer.Argument(help="See `list`.")],
    to: Annotated[str, typer.Option(help="The Hub repository ORG/NAME; it is created if it does not exist.")],
    weights: Weights = "shipped",
    card: Annotated[
        typer.FileText | None,
        typer.Option(encoding="utf-8", help="Another model card, - for stdin. See `python -m leaderboard card`."),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the files, and send nothing.")] = False,
) -> None:
    """Send a model to the Hub, where load("ORG/NAME") finds it: weights, configuration, card."""
    from dehaze import hub

    with reported_errors():
        files = hub.repository(name, weights, card and card.read())
        for path, content in files.items():
            console.print(f"{len(content):>12,}  {path}", markup=False)
        if dry_run:
            console.print(f"Nothing was sent to {to}.", markup=False)
        else:
            console.print(hub.push(to, files), markup=False)


def _costs(network: "torch.nn.Module") -> list[tuple[str, int]]:
    """Count multiply-adds; for a network that routes patches, once with all light and once with all dense."""
    import torch

    from dehaze.cost import multiply_adds
    from dehaze.density import instruct, load_clip
    from dehaze.networks.base import RoutesPatches

    hazy = torch.zeros(1, 3, 256, 256)
    clip = load_clip(network)
    if not isinstance(network, RoutesPatches) or network.threshold is None:
        return [("", multiply_adds(lambda hazy: network(hazy, **instruct(network, clip, hazy)), hazy))]
    routed, kept = [], network.threshold.clone()
    for patches, threshold in ((", every patch light", float("inf")), (", every patch dense", -float("inf"))):
        network.threshold.fill_(threshold)
        routed.append((patches, multiply_adds(network, hazy)))
    network.threshold.copy_(kept)
    return routed


def _summary(network: object) -> str:
    return (type(network).__doc__ or "").partition("\n")[0]
