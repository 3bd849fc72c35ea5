"""What a run was started with: written beside its checkpoint, and compared when the run goes on."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch

import dehaze
from dehaze.errors import DehazeError
from dehaze.io.files import write_whole
from dehaze.training.recipe import Recipe

FILE = "run.json"
_MADE_WITH = "made_with"  # versions, which may differ when a run goes on
_NAMED = 5  # settings that an error names


def describe(recipe: Recipe, **given: object) -> dict[str, Any]:
    """Return the recipe, what the run was `given`, and the versions it was made with, as JSON has them."""
    versions = {"dehaze": dehaze.__version__, "torch": torch.__version__, "commit": _commit()}
    told = {"recipe": asdict(recipe), **given, _MADE_WITH: versions}
    return json.loads(json.dumps(told, default=_text))


def check(settings: Mapping[str, Any], folder: Path) -> None:
    """Raise DehazeError if the run in a folder was started with other settings, and name them."""
    try:
        before = dict(_flat(json.loads((folder / FILE).read_text(encoding="utf-8"))))
    except FileNotFoundError:  # of a run that older code started
        return
    except ValueError as error:
        raise DehazeError(f"is damaged ({error}).", "Remove it to go on.", subject=folder / FILE) from error
    now = dict(_flat(settings))
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


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the settings that count, with dotted names."""
    if not isinstance(value, dict):
        yield name, value
        return
    for key, part in value.items():
        if key != _MADE_WITH:
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
