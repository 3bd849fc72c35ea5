"""Scores of one photograph on the page: measured by what the program provides, rendered as HTML.

The page imports no metrics: `provide` is given something that measures.
"""

import html
import re
from collections.abc import Mapping
from typing import NamedTuple, Protocol

from PIL import Image

from dehaze.page.inference import optional
from dehaze.page.visitors import scoring

SIDE = 800  # px; photographs are scored on copies of at most this long side
DENSITY = "density"  # among the scores: the mean of the haze density that a model estimates, in [0,1]
# The mean density below which a word holds; ours.
_WORDS = {0.1: "hardly any haze", 0.25: "light haze", 0.45: "moderate haze", 0.65: "dense haze", 2: "very dense haze"}

Scores = dict[str, float | None]  # by name, None where it cannot be had


class Scorer(Protocol):
    """What measures a photograph without knowing the clear scene."""

    METRICS: Mapping[str, tuple[str, str]]  # name: title, and what it means; lower is better in all

    def measure(self, picture: Image.Image) -> Scores:
        """Score an RGB photograph by each metric, None where that cannot be had."""
        ...

    def lacking(self, name: str) -> str | None:
        """Say what a metric lacks to be computed here, None if nothing."""
        ...

    def seconds_per_megapixel(self) -> dict[str, float]:
        """Return the speed of each model that was measured."""
        ...


class _NoScorer:
    METRICS: Mapping[str, tuple[str, str]] = {}

    def measure(self, picture: Image.Image) -> Scores:
        return {}

    def lacking(self, name: str) -> str | None:
        return None

    def seconds_per_megapixel(self) -> dict[str, float]:
        return {}


_scorer: Scorer = _NoScorer()


def provide(scorer: Scorer) -> None:
    """Have photographs measured by `scorer` from now on."""
    global _scorer
    _scorer = scorer


def speeds() -> dict[str, float]:
    """Return the measured seconds per megapixel of each model."""
    return _scorer.seconds_per_megapixel()


def measured(picture: Image.Image, visitor: str = "") -> Scores:
    """Score a picture when its visitor's turn comes; without scores where that fails."""
    with scoring(visitor):
        return optional(_scorer.measure, reduced(picture)) or dict.fromkeys(_scorer.METRICS)


def reduced(picture: Image.Image) -> Image.Image:
    """Return the copy of a photograph that is scored."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return small


def in_words(density: float) -> str:
    """Say what a mean haze density in [0,1] means."""
    return next(word for limit, word in _WORDS.items() if density < limit)


def note(density: str) -> str:
    """Say of what the scores are, and whose estimate the haze `density` is."""
    return (
        f"<p>↓ lower is better. Measured on copies with a long side of at most {SIDE} pixels, without knowing the "
        "clear scene: hints, no more, so trust your eyes. FADE is computed with statistics refitted by this project "
        f"(<b>fade_refit</b>) and is not comparable with published FADE. The haze density is {density}.</p>"
    )


def comparison(before: Scores, after: Scores) -> str:
    """Render the scores of a photograph before and after as an HTML table, with what they mean."""
    rows = []
    if before.get(DENSITY) is not None and after.get(DENSITY) is not None:
        rows.append(_row(("Haze density ↓", "mean of the estimate"), before[DENSITY], after[DENSITY], ".0%"))
    for name, (title, meaning) in _scorer.METRICS.items():
        rows.append(_row((f"{title} ↓", meaning), before[name], after[name], ".2f", _absence(name)))
    return (
        "<table><thead><tr><th>score</th><th>before</th><th>after</th><th></th></tr></thead>"
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def _row(heading: tuple[str, str], old: float | None, new: float | None, form: str, absence: str = "") -> str:
    if old is None or new is None:
        cells, verdict = "<td>–</td><td>–</td>", absence
    else:
        texts = f"{old:{form}}", f"{new:{form}}"
        cells = "".join(f"<td>{text}</td>" for text in texts)
        verdict = "unchanged" if texts[0] == texts[1] else "better" if new < old else "worse"
    title, meaning = heading
    return (
        f"<tr><th scope=row>{title}<small>{meaning}</small></th>{cells}"
        f"<td class='verdict {verdict.split()[0]}'>{verdict}</td></tr>"
    )


def _absence(name: str) -> str:
    """Say why a score is not there."""
    lacking = _scorer.lacking(name)
    return f"not measured: this server lacks it ({lacking})" if lacking else "too small to measure"


class Row(NamedTuple):
    """One of several results of a photograph: its scores, the density before, and the seconds in the network."""

    name: str
    scores: Scores
    density: float | None = None
    seconds: float | None = None


def ranking(rows: list[Row]) -> str:
    """Render several results of one photograph as an HTML table."""
    headings = ["result", *(f"{title} ↓" for title, _ in _scorer.METRICS.values()), "density ↓", "time"]
    body = []
    for row in rows:
        texts = ["–" if row.scores[name] is None else f"{row.scores[name]:.2f}" for name in _scorer.METRICS]
        left = row.scores.get(DENSITY)
        texts.append("" if left is None or row.density is None else f"{row.density:.0%} → {left:.0%}")
        texts.append("" if row.seconds is None else f"{row.seconds:.1f} s")
        cells = "".join(f"<td>{text}</td>" for text in texts)
        name = re.sub("([:_])", r"\1<wbr>", html.escape(row.name))  # where long ones may break on a phone
        body.append(f"<tr><th scope=row>{name}</th>{cells}</tr>")
    absent = [
        f"{_scorer.METRICS[name][0]} {_absence(name)}."
        for name in _scorer.METRICS
        if rows and rows[0].scores[name] is None
    ]
    return (
        f"<table><thead><tr>{''.join(f'<th>{text}</th>' for text in headings)}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>{''.join(f'<p>{text}</p>' for text in absent)}"
    )
