import html

import pytest
from hypothesis import given
from hypothesis import strategies as st
from markdown_it import MarkdownIt
from rich.text import Text

from bench.report import escape

EVERY = [escape.visible, escape.terminal_text, escape.html_text, escape.markdown_text, escape.latex_text]
EVERY += [escape.bibtex_text, escape.csv_cell]


@pytest.mark.parametrize("safe", EVERY, ids=lambda safe: safe.__name__)
@given(st.text())
def test_any_text_becomes_one_line_that_can_be_seen(safe, text):
    assert safe(text).isprintable()


@given(st.text())
def test_what_is_escaped_is_shown_as_it_was(text):
    line = escape.visible(text)
    [_, inline, _] = MarkdownIt("commonmark").parse(escape.markdown_text(f"a {text} b"))
    assert "".join(part.content for part in inline.children) == escape.visible(f"a {text} b")
    assert html.unescape(escape.html_text(text)) == line
    assert Text.from_markup(f"[red]{escape.terminal_text(text)}[/red]", emoji=False).plain == line


@pytest.mark.parametrize(
    ("safe", "text", "expected"),
    [
        (escape.visible, " a\r\n\tb\u2028c ", "a b c"),
        (escape.visible, "\u202egnp\x1b", "�gnp�"),
        (escape.markdown_text, "fade_refit (dB), 0.5 & R&D", "fade_refit (dB), 0.5 & R&D"),
        (escape.markdown_text, "_a_ 1. x", r"\_a\_ 1. x"),
        (escape.markdown_text, "1. x", r"1\. x"),
        (escape.markdown_text, "# x", r"\# x"),
        (escape.markdown_text, "https://www.a.b &lt;", r"https\://www\.a.b \&lt;"),
        (escape.latex_text, r"a_b \x {5%}", r"a\_b \textbackslash{}x \{5\%\}"),
        (escape.latex_text, "[2cm] x", "{[}2cm] x"),
        (escape.bibtex_text, "{5%}", r"\textbraceleft{}5\%\textbraceright{}"),
        (escape.csv_cell, " =1+1", "'=1+1"),
        (escape.csv_cell, -1.5, -1.5),
        (escape.csv_cell, None, None),
        (escape.json_text, '{\n "a": "Δ\x9b\u202e"}', '{\n "a": "Δ\\u009b\\u202e"}'),
    ],
)
def test_each_place_has_its_escapes(safe, text, expected):
    assert safe(text) == expected
