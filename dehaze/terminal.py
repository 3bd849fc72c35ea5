"""What the command lines print: results, errors, and names from strangers."""

import io
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

import typer
from rich.console import Console
from rich.markup import escape

from dehaze.errors import DehazeError, UnknownModelError

console = Console(soft_wrap=True, highlight=False, emoji=False)  # names may hold :colons:
complaints = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)

# Of models from outside the project, the same for every command that runs one.
MultipleOf = Annotated[
    int, typer.Option(min=1, help="Pad images, mirrored, to heights and widths that a model of your own takes, in px.")
]
ValueRange = Annotated[
    str, typer.Option("--range", help="Values of a model of your own: 01 for [0,1], 11 for [-1,1], 255 for [0,255].")
]
Channels = Annotated[str, typer.Option(help="Order of the channels of a model of your own: rgb or bgr.")]


def escape_unprintable() -> None:
    """Escape characters that the encoding of the terminal lacks, as Python does in error messages."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def as_markup(text: object) -> str:
    """Escape rich markup, and characters that would control the terminal or break the line."""
    return escape("".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in str(text)))


@contextmanager
def reported_errors() -> Iterator[None]:
    """Print an error that says what to do. Exit with 2 for an unknown name or setting, and with 1 otherwise."""
    try:
        yield
    except (DehazeError, OSError, ValueError) as error:
        complaints.print(f"[red]error:[/] {as_markup(error)}")
        raise typer.Exit(2 if isinstance(error, UnknownModelError | ValueError) else 1) from None
