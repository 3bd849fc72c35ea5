"""The command line: `python -m dehaze run | list | info | push | haze | convert | train`."""

import io
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.progress import Progress
from rich.table import Column, Table

from dehaze.convert import convert
from dehaze.errors import DehazeError
from dehaze.haze.cli import haze
from dehaze.terminal import as_markup, complaints, console, reported_errors
from dehaze.training.cli import train

if TYPE_CHECKING:
    import torch

app = typer.Typer(
    help="Remove haze from photographs.", no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False
)
app.command()(haze)
app.command()(convert)
app.command()(train)

Weights = Annotated[
    str, typer.Option(help="'shipped', a .safetensors file, a folder, or a Hub id org/name[@revision].")
]


@app.callback()
def escape_unprintable() -> None:
    """Escape characters that the encoding of the terminal lacks, as Python does in error messages."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


@app.command()
def run(
    photos: Annotated[list[str], typer.Argument(help="Photographs, folders, or globs in quotes.", metavar="PHOTO…")],
    output: Annotated[
        str | None,
        typer.Option(
            help="A file for one photograph, a folder for many. Default: NAME_dehazed beside each photograph.",
            metavar="PATH",
        ),
    ] = None,
    model: Annotated[str, typer.Option(help="See `list`.")] = "api",
    weights: Weights = "shipped",
    strength: Annotated[float, typer.Option(min=0, max=1, help="0 keeps the input, 1 restores it fully.")] = 1.0,
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
) -> None:
    """Restore photographs. Failures are reported at the end; they do not stop the others."""
    import torch

    from dehaze import load
    from dehaze.io import names
    from dehaze.io.photo import read_photo

    with reported_errors():
        files, results = names.find_photos(photos)
        targets = names.choose_targets(files, output)
        _prepare_folders({target.parent for target in targets.values()})
        dehazer = load(model, weights, device, dtype, tile, fast)
    if results:
        complaints.print(
            f"skipped {len(results)} results of earlier runs, such as {as_markup(results[0])}; "
            "give a file by its name to restore it again"
        )
    failures: list[str] = []
    with Progress(console=complaints, disable=len(files) == 1, transient=True) as progress:
        for file in progress.track(files, description=f"{model} on {dehazer.device}"):
            try:
                photo = read_photo(file, max_megapixels=max_megapixels)
                restoration = dehazer(photo, strength)
                written = restoration.save(targets[file], strip_metadata=strip_metadata)
            except DehazeError as error:
                failures.append(str(error))
                continue
            except (MemoryError, torch.OutOfMemoryError):
                failures.append(f"{file} needs more memory than there is. Give a smaller --tile.")
                continue
            except RuntimeError as error:  # torch has no class of its own for the memory of CPUs
                reason = str(error).partition("\n")[0]
                failures.append(f"{file} cannot be restored: {reason}. A smaller --tile needs less memory.")
                continue
            height, width = restoration.pixels.shape[:2]
            console.print(f"{as_markup(written)}  {width}×{height}  {restoration.seconds:.2f} s")
            for note in (*photo.notes, *(() if strip_metadata else photo.losses(written))):
                complaints.print(f"note: {as_markup(file)}: {as_markup(note)}")
    for failure in failures:
        complaints.print(f"[red]failed:[/] {as_markup(failure)}")
    if failures:
        complaints.print(f"{len(failures)} of {len(files)} failed")
        raise typer.Exit(1)


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


@app.command("list")
def list_() -> None:
    """List the models."""
    from dehaze import list_models
    from dehaze.hub import load_network

    table = Table("model", "parameters", "license", "what it does", box=None)
    for name in list_models():
        with reported_errors():
            network, weights = load_network(name, "shipped")
        count = sum(parameter.numel() for parameter in network.parameters())
        license_ = weights.card.get("license", "") if weights else "no weights"
        table.add_row(name, f"{count:,}", license_, _summary(network))
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
