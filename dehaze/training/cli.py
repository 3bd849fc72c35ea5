"""The commands that train: `python -m dehaze train`, and those of `dehaze.training`."""

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Literal

import typer

from dehaze.errors import UnknownModelError
from dehaze.terminal import complaints, reported_errors
from dehaze.training.recipes import RECIPES


def run_command(command: Callable[..., None], module: str) -> None:
    """Run one function as the whole command line of `python -m MODULE`."""
    app = typer.Typer(add_completion=False, pretty_exceptions_enable=False)
    app.command()(command)
    app(prog_name=f"python -m {module}")


def _recipe_name(name: str) -> str:
    try:
        RECIPES.get(name)
    except UnknownModelError as error:
        raise typer.BadParameter(str(error)) from None
    return name


def train(
    recipe: Annotated[str, typer.Option(help=f"One of {', '.join(RECIPES.names())}.", callback=_recipe_name)],
    data: Annotated[Path, typer.Option(help="Folder with images/NAME.jpg and depth/NAME.png.")],
    pairs: Annotated[Path | None, typer.Option(help="Folder with hazy/ and clear/: train on these pairs, too.")] = None,
    real: Annotated[
        Path | None, typer.Option(help="Folder of real hazy photographs, for recipes that learn from them.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="Safetensors file of VGG16, for recipes that compare features.")
    ] = None,
    start: Annotated[
        Path | None,
        typer.Option(help="Safetensors file of initial weights: of the network, or of the one `progressive:` wraps."),
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for checkpoint, log and weights. Default: runs/RECIPE.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Default: by the recipe.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Summed over all processes. Default: the recipe's.")] = None,
    crop: Annotated[int | None, typer.Option(min=1, help="Side of the crops in px. Default: by the recipe.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: by the recipe.")] = None,
    seed: Annotated[int | None, typer.Option(help="Default: by the recipe.")] = None,
    workers: Annotated[int, typer.Option(min=0, help="Extra rendering processes for each training process.")] = 1,
    precision: Annotated[Literal["bf16", "fp16", "fp32"], typer.Option(help="Number format of training.")] = "bf16",
    save_every: Annotated[int, typer.Option(min=1, help="Steps between checkpoints.")] = 500,
    override: Annotated[bool, typer.Option("--override", help="Resume a run with other settings.")] = False,
) -> None:
    """Train a model. The same command resumes a run that was stopped."""
    from dataclasses import replace

    from dehaze.memory import keep_freed_memory
    from dehaze.training.loop import train

    keep_freed_memory()
    instead = {"steps": steps, "batch": batch, "crop": crop, "learning_rate": learning_rate, "seed": seed}
    given = {key: value for key, value in instead.items() if value is not None}
    try:
        with reported_errors():
            train(
                replace(RECIPES.get(recipe), **given),
                data,
                output or Path("runs") / recipe,
                pairs=pairs,
                real=real,
                features=features,
                start=start,
                workers=workers,
                precision=precision,
                save_every=save_every,
                override=override,
            )
    except KeyboardInterrupt:
        complaints.print("stopped; the same command resumes from the last checkpoint")
        raise typer.Exit(1) from None
