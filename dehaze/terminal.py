"""What the command lines print: results, errors, and names from strangers."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from dehaze.errors import DehazeError, UnknownModelError

console = Console(soft_wrap=True, highlight=False, emoji=False)  # names may hold :colons:
complaints = Console(stderr=True, soft_wrap=True, highlight=False, emoji=False)


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
