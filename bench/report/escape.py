"""What records say, made safe for the place where it stands.

Strangers write records. Each function here takes any text and returns one line that shows it and does nothing: no
markup, no formula, no command, no control of the terminal.
"""

import html
import io
import json
import re
import sys
from typing import TypeVar

from rich import markup

Value = TypeVar("Value")


def escape_unprintable() -> None:
    """Escape characters that the encoding of the terminal lacks, as Python does in error messages."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def visible(text: str) -> str:
    """Return the text as one line; a character that cannot be seen, or turns the others around, becomes U+FFFD."""
    line = " ".join(text.split())
    if line.isprintable():
        return line
    return "".join(letter if letter.isprintable() else "\N{REPLACEMENT CHARACTER}" for letter in line)


def terminal_text(text: str) -> str:
    """Return the text for rich, which takes square brackets as markup."""
    return markup.escape(visible(text))


def html_text(text: str) -> str:
    """Return the text for HTML: between tags, or as a quoted attribute."""
    return html.escape(visible(text))


# What means something within a line of Markdown, or makes a link of an address; what does at the start of one.
_INLINE = re.compile(r"[\\`*<>|\[\]~$@]|(?<![^\W_])_|_(?![^\W_])|&(?=#?\w+;)|:(?=//)|(?<=\bwww)\.", re.IGNORECASE)
_START = re.compile(r"^(\d+(?=[.)](?: |$))|(?=[#+=-]))(.)")


def markdown_text(text: str) -> str:
    """Return the text for a line of Markdown, or a cell of a table."""
    return _START.sub(r"\1\\\2", _INLINE.sub(r"\\\g<0>", visible(text)))


_LATEX_MARKS: dict[str, str] = {
    "\\": r"\textbackslash{}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "↑": r"$\uparrow$",
    "↓": r"$\downarrow$",
    "∞": r"$\infty$",
    "×": r"$\times$",
    "–": "--",
    "Δ": r"$\Delta$",
    "†": r"$^\dagger$",
} | {mark: f"\\{mark}" for mark in "&%$#_{}"}
# BibTeX counts braces, whatever stands before them.
_BIBTEX = str.maketrans(_LATEX_MARKS | {"{": r"\textbraceleft{}", "}": r"\textbraceright{}"})
_LATEX = str.maketrans(_LATEX_MARKS)


def latex_text(text: str) -> str:
    """Return the text for LaTeX."""
    # At the start of a row, [ and * would belong to the end of the row before.
    return re.sub(r"^[\[*]", r"{\g<0>}", visible(text).translate(_LATEX))


def bibtex_text(text: str) -> str:
    """Return the text for a field of BibTeX, in braces."""
    return visible(text).translate(_BIBTEX)


def csv_cell(value: Value) -> Value | str:
    """Return a cell that no spreadsheet calculates: a text like a formula gets a quote, other values stay."""
    if not isinstance(value, str):
        return value
    line = visible(value)
    return f"'{line}" if line.startswith(("=", "+", "-", "@", "＝", "＋", "－", "＠")) else line


def json_text(text: str) -> str:
    """Return JSON as it is, with an escape for each character in its strings that cannot be seen."""
    return "".join(letter if letter.isprintable() or letter == "\n" else json.dumps(letter)[1:-1] for letter in text)
