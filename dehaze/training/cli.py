"""The commands that train: `python -m dehaze train`, and those of `dehaze.training`."""

import re
import tomllib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from dehaze.errors import UnknownModelError
from dehaze.terminal import complaints, console, reported_errors
from dehaze.training.recipes import RECIPES

if TYPE_CHECKING:
    from dehaze.training.recipe import Recipe

REPO = re.compile(r"[\w.-]+/[\w.-]+")
_FROM_FILE = "recipe values"  # where a context keeps those of --config


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


def _read_config(context: typer.Context, file: Path | None) -> Path | None:
    """Take a file's entries as defaults of the options that they name, and keep the others as values of the recipe."""
    if file is None:
        return None
    try:
        entries = tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise typer.BadParameter(f"{file} cannot be read ({error})") from None
    options = {each.name for each in context.command.params} - {"config", "set_"}
    given = {key.replace("-", "_"): value for key, value in entries.items()}
    context.default_map = {key: value for key, value in given.items() if key in options}
    context.meta[_FROM_FILE] = {key: value for key, value in given.items() if key not in options}
    return file


def _changed(recipe: "Recipe", values: dict[str, Any]) -> "Recipe":
    """Return a recipe with other values; a table in a file stands for dotted names."""
    from dehaze.training.settings import set_value

    for name, value in values.items():
        for key, inner in value.items() if isinstance(value, dict) else [("", value)]:
            recipe = set_value(recipe, f"{name}.{key}".rstrip("."), inner)
    return recipe


def train(
    context: typer.Context,
    recipe: Annotated[str, typer.Option(help=f"One of {', '.join(RECIPES.names())}.", callback=_recipe_name)],
    data: Annotated[
        Path | None, typer.Option(help="Folder with images/NAME.jpg and depth/NAME.png, which are rendered hazy.")
    ] = None,
    pairs: Annotated[Path | None, typer.Option(help="Folder with hazy/ and clear/: train on these pairs.")] = None,
    pair_share: Annotated[
        float | None, typer.Option(min=0, max=1, help="Share of the samples from pairs, beside --data.")
    ] = None,
    val_pairs: Annotated[
        Path | None, typer.Option(help="Pairs to validate by. Default: a tenth of --pairs, which is held out.")
    ] = None,
    real: Annotated[
        Path | None, typer.Option(help="Folder of real hazy photographs, for recipes that learn from them.")
    ] = None,
    features: Annotated[
        Path | None, typer.Option(help="Safetensors file of VGG16, for recipes that compare features.")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            help="Initial weights: 'shipped', a .safetensors file, a folder, or a Hub id; "
            "of the network, or of the one that `progressive:` wraps."
        ),
    ] = None,
    freeze: Annotated[
        list[str] | None, typer.Option(help="Parameters that are not trained, such as 'encoders.*'. Can be repeated.")
    ] = None,
    output: Annotated[
        Path | None, typer.Option(help="Folder for checkpoint, log and weights. Default: runs/RECIPE.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Default: by the recipe.")] = None,
    batch: Annotated[int | None, typer.Option(min=1, help="Summed over all processes. Default: the recipe's.")] = None,
    accumulate: Annotated[
        int | None, typer.Option(min=1, help="Split each batch into so many parts, to save memory.")
    ] = None,
    crop: Annotated[int | None, typer.Option(min=1, help="Side of the crops in px. Default: by the recipe.")] = None,
    learning_rate: Annotated[float | None, typer.Option(help="Default: by the recipe.")] = None,
    seed: Annotated[int | None, typer.Option(help="Default: by the recipe.")] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", help="Any value of the recipe: KEY=VALUE, such as renderer.beta='[0.5, 2.0]'."),
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML file of options and of the recipe's values. The command line goes before it.",
            is_eager=True,
            callback=_read_config,
        ),
    ] = None,
    workers: Annotated[int, typer.Option(min=0, help="Extra rendering processes for each training process.")] = 1,
    precision: Annotated[
        Literal["auto", "bf16", "fp16", "fp32"], typer.Option(help="Number format. auto: bf16 where it is fast.")
    ] = "auto",
    photo_memory: Annotated[float, typer.Option(min=0, help="GB of decoded photographs that are kept.")] = 1.0,
    save_every: Annotated[int, typer.Option(min=1, help="Steps between validations.")] = 500,
    keep: Annotated[int, typer.Option(min=1, help="How many validations' weights are kept, beside the best.")] = 3,
    patience: Annotated[
        int | None, typer.Option(min=1, help="End after so many validations without a better score.")
    ] = None,
    log_with: Annotated[
        list[str] | None, typer.Option(help="Follow the run with tensorboard, wandb, … Can be repeated.")
    ] = None,
    license: Annotated[str | None, typer.Option(help="Licence of the weights, for their card.")] = None,
    push: Annotated[
        str | None, typer.Option(help="Send the best weights to this Hub repository ORG/NAME at the end.")
    ] = None,
    override: Annotated[bool, typer.Option("--override", help="Resume a run with other settings.")] = False,
) -> None:
    """Train a model, or fine-tune one on your own pairs. The same command resumes a run that was stopped."""
    from accelerate import PartialState

    from dehaze import hub
    from dehaze.memory import keep_freed_memory
    from dehaze.networks import NETWORKS
    from dehaze.training.loop import train
    from dehaze.training.results import state_license
    from dehaze.training.settings import parse

    keep_freed_memory()
    options = {"steps": steps, "batch": batch, "accumulate": accumulate, "crop": crop, "learning_rate": learning_rate}
    options |= {"seed": seed, "pair_share": pair_share, "freeze": freeze}
    output = output or Path("runs") / recipe
    try:
        with reported_errors():
            values = context.meta.get(_FROM_FILE, {}) | dict(map(parse, set_ or []))
            values |= {key: value for key, value in options.items() if value is not None}
            chosen = _changed(RECIPES.get(recipe), values)
            if push is not None and not license:
                raise ValueError("--push needs --license: the card says under which licence others may use the weights")
            if push is not None and not REPO.fullmatch(push):
                raise ValueError(f"--push is {push!r}; a repository of the Hub is called ORG/NAME")
            if push is not None and chosen.model.rpartition(":")[2] not in NETWORKS.names():
                raise ValueError(f"{chosen.model} is no model that dehaze.load knows; leave --push out")
            train(
                chosen,
                data,
                output,
                pairs=pairs,
                val_pairs=val_pairs,
                real=real,
                features=features,
                start=start,
                name=recipe,
                license=license,
                workers=workers,
                precision=precision,
                save_every=save_every,
                keep=keep,
                patience=patience,
                photo_memory=photo_memory,
                log_with=log_with or (),
                override=override,
            )
            if push is not None and PartialState().is_main_process:
                best = output / "best"
                folder = best if best.exists() else output / "weights"
                state_license(folder, str(license))
                console.print(hub.push(push, hub.repository(chosen.model, folder)), markup=False)
    except KeyboardInterrupt:
        complaints.print("stopped; the same command resumes from the last checkpoint")
        raise typer.Exit(1) from None
