"""What the page says where it cannot go on, and the checks of what visitors send."""

import html
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import gradio as gr

from dehaze.adjust import MAX_STRENGTH, MIN_STRENGTH, Adjustments
from dehaze.errors import DehazeError
from dehaze.page.folder import full_disk_explained


@contextmanager
def explained(title: str) -> Iterator[None]:
    """Turn errors that say what to do into messages on the page."""
    try:
        with full_disk_explained():
            yield
    except (DehazeError, ValueError) as error:
        raise refusal(f"{title}. {html.escape(for_visitors(error), quote=False)}") from None


def refusal(message: str) -> gr.Error:
    """Return a message for the visitor; gradio shows no titles."""
    return gr.Error(message, 30, print_exception=False)


def for_visitors(error: DehazeError | ValueError, name: str | None = None) -> str:
    """Word an error for a visitor; `name` stands for the file that it is about."""
    return error.for_visitors(name) if isinstance(error, DehazeError) else str(error)


def uploaded(upload: Any, what: str) -> Path:
    """Return the path of what was uploaded. Raises gr.Error if that is nothing.

    That it is one of the page's own files is looked at by the door.
    """
    if not upload:
        raise refusal(f"There is no {what} yet. Add one first.")
    if not (isinstance(upload, dict) and isinstance(path := upload.get("path"), str)):
        raise refusal(f"This {what} was not uploaded as a file.")
    return Path(path)


def chosen(value: Any, offered: Collection[Any], what: str) -> Any:
    """Return a choice. Raises gr.Error if it is none of what the page offers: not every event's inputs are checked."""
    if isinstance(value, str) and value in offered:
        return value
    raise refusal(f"The {what} is one of {', '.join(map(str, offered))}; this is none of them.")


def chosen_strength(value: Any) -> float:
    """Return a strength. Raises gr.Error if it is no number that a strength can be."""
    if isinstance(value, int | float) and MIN_STRENGTH <= value <= MAX_STRENGTH:
        return float(value)
    raise refusal(
        f"The strength is a number between {MIN_STRENGTH:g} and {MAX_STRENGTH:g}: 0 keeps the photograph, 1 restores "
        "it in full, more removes more, and below 0 haze is added."
    )


def chosen_adjustments(*amounts: Any) -> Adjustments:
    """Return adjustments by their amounts. Raises gr.Error if one is no number between 0 and 1."""
    if all(isinstance(amount, int | float) and 0 <= amount <= 1 for amount in amounts):
        return Adjustments(*map(float, amounts))
    raise refusal("Each adjustment is a number between 0, which leaves it out, and 1.")
