"""What a run is started with: values set by name, written beside its checkpoint, and compared when it goes on."""

import json
import subprocess
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, fields, is_dataclass, replace
from difflib import get_close_matches
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import torch
from pydantic import BeforeValidator, TypeAdapter, ValidationError

import dehaze
from dehaze.errors import DehazeError
from dehaze.haze import HazeMixture
from dehaze.io.files import write_whole
from dehaze.training.recipe import Recipe

FILE = "run.json"
_APART = ("made_with", "card")  # versions and what is for the card may differ when a run goes on
_NAMED = 5  # settings that an error names


def set_value(recipe: Any, name: str, value: Any) -> Any:
    """Return a recipe with another value; a dotted name, such as `renderer.beta`, reaches into its haze.

    In a mixture every kind of haze takes the value. Numbers, texts and lists of them can be set, of the kind that
    stands there. Raises ValueError that names what does not fit.
    """
    field, _, inner = name.partition(".")
    if isinstance(recipe, HazeMixture):
        return HazeMixture(tuple((share, set_value(kind, name, value)) for share, kind in recipe.kinds))
    known = _values(recipe)
    if field not in known:
        near = get_close_matches(field, known, 1)
        raise ValueError(
            f"{field!r} is no value of a recipe; {f'did you mean {near[0]}?' if near else ', '.join(known)}"
        )
    now = known[field]
    if inner or is_dataclass(now):
        return replace(recipe, **{field: set_value(now, inner, value)})
    try:
        return replace(recipe, **{field: TypeAdapter(_kind(now)).validate_python(value, strict=True)})
    except ValidationError as error:
        expected = error.errors(include_url=False)[0]["msg"].partition(" ")[2]
        raise ValueError(f"{name} is {value!r} and {expected}, as {now!r} is") from error


def _values(recipe: object) -> dict[str, Any]:
    """Return what can be set: neither networks nor functions."""
    found = {each.name: getattr(recipe, each.name) for each in fields(recipe)} if is_dataclass(recipe) else {}
    return {name: value for name, value in found.items() if not callable(value)}


def _kind(value: Any) -> Any:
    """Return the type that stands for a value: a range keeps its length, a list of texts may have any."""
    if not isinstance(value, tuple):
        return type(value)
    kinds = tuple(_kind(each) for each in value)
    made = tuple[str, ...] if not kinds or kinds[0] is str else tuple[kinds]
    return Annotated[made, BeforeValidator(lambda given: tuple(given) if isinstance(given, list) else given)]


def parse(text: str) -> tuple[str, Any]:
    """Split KEY=VALUE; the value is read as TOML has it, else as text. Raises ValueError."""
    name, equals, value = text.partition("=")
    if not equals or not name.strip():
        raise ValueError(f"{text!r} is not KEY=VALUE, such as steps=2000 or renderer.beta=[0.5, 2.0]")
    try:
        return name.strip(), tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return name.strip(), value.strip()


def describe(recipe: Recipe, **given: object) -> dict[str, Any]:
    """Return the recipe, what the run was `given`, and the versions it was made with, as JSON has them."""
    versions = {"dehaze": dehaze.__version__, "torch": torch.__version__, "commit": _commit()}
    told = {"recipe": asdict(recipe), **given, "made_with": versions}
    return json.loads(json.dumps(told, default=_text))


def check(settings: Mapping[str, Any], folder: Path) -> None:
    """Raise DehazeError if the run in a folder was started with other settings, and name them."""
    try:
        before = flat(json.loads((folder / FILE).read_text(encoding="utf-8")))
    except FileNotFoundError:  # of a run that older code started
        return
    except ValueError as error:
        raise DehazeError(f"is damaged ({error}).", "Remove it to go on.", subject=folder / FILE) from error
    now = flat(settings)
    changed = [key for key in {**before, **now} if before.get(key) != now.get(key)]
    if not changed:
        return
    told = [f"{key} was {_short(before.get(key))} and is {_short(now.get(key))}" for key in changed[:_NAMED]]
    more = f"; and {len(changed) - _NAMED} more" if len(changed) > _NAMED else ""
    raise DehazeError(
        f"holds a run with other settings: {'; '.join(told)}{more}.",
        setting="Give --override to go on with the new ones, or another --output.",
        subject=folder,
    )


def write(settings: Mapping[str, Any], folder: Path) -> None:
    """Write the settings of a run into its folder. Raises OutputError."""
    write_whole(folder / FILE, (json.dumps(settings, indent=2) + "\n").encode())


def flat(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings that count, by dotted names."""
    return dict(_flat(settings))


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(value, dict):
        yield name, value
        return
    for key, part in value.items():
        if key not in _APART:
            yield from _flat(part, f"{name}.{key}".removeprefix(".").removeprefix("recipe."))


def _short(value: Any) -> str:
    text = "not given" if value is None else str(value)
    return text if len(text) <= 80 else f"…{text[-79:]}"  # of a path, the end tells more


def _text(value: Any) -> str:
    if isinstance(value, Path):
        return str(value.resolve())
    if isinstance(value, partial):
        options = ", ".join(
            [*map(_text, value.args), *(f"{key}={_text(each)}" for key, each in value.keywords.items())]
        )
        return f"{_text(value.func)}({options})"
    return str(getattr(value, "__qualname__", value))


def _commit() -> str | None:
    """Return the commit of the code, None where it does not lie in a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "rev-parse", "HEAD"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None
