"""What the benchmark says of one photograph, and of a model's speed, for the page.

The page imports no `bench`; this is its door to the metrics that need no clear image, which are no records.
"""

import html
import re
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import torch
from PIL import Image

from bench import metrics
from bench.record import RESULTS, read_folder

SIDE = 800  # px; photographs are scored on copies of at most this long side
# Lower is better in both.
METRICS = {"niqe": ("NIQE", "how unnatural it looks"), "fade_refit": ("FADE, refitted", "how foggy it looks")}
DENSITY = "density"  # among the scores: the mean of the haze density that a model estimates, in [0,1]
# The mean density below which a word holds; ours.
_WORDS = {0.1: "hardly any haze", 0.25: "light haze", 0.45: "moderate haze", 0.65: "dense haze", 2: "very dense haze"}

Scores = dict[str, float | None]  # by name, None where it cannot be had


def reduced(picture: Image.Image) -> Image.Image:
    """Return the copy of a photograph that is scored."""
    small = picture.copy()
    small.thumbnail((SIDE, SIDE), Image.Resampling.LANCZOS)
    return small


def measure(picture: Image.Image) -> Scores:
    """Score an RGB photograph by each of METRICS; None where it is too small or a library is missing."""
    tensor = torch.from_numpy(np.array(reduced(picture))).permute(2, 0, 1)[None] / 255
    scores: Scores = {}
    for name in METRICS:
        try:
            scores[name] = None if metrics.lacking(name) else float(metrics.get(name)(tensor))
        except metrics.MetricError:
            scores[name] = None
    return scores


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
    for name, (title, meaning) in METRICS.items():
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
    lacking = metrics.lacking(name)
    return f"not measured: this server lacks it ({lacking})" if lacking else "too small to measure"


class Row(NamedTuple):
    """One of several results of a photograph: its scores, the density before, and the seconds in the network."""

    name: str
    scores: Scores
    density: float | None = None
    seconds: float | None = None


def ranking(rows: list[Row]) -> str:
    """Render several results of one photograph as an HTML table."""
    headings = ["result", *(f"{title} ↓" for title, _ in METRICS.values()), "density ↓", "time"]
    body = []
    for row in rows:
        texts = ["–" if row.scores[name] is None else f"{row.scores[name]:.2f}" for name in METRICS]
        left = row.scores.get(DENSITY)
        texts.append("" if left is None or row.density is None else f"{row.density:.0%} → {left:.0%}")
        texts.append("" if row.seconds is None else f"{row.seconds:.1f} s")
        cells = "".join(f"<td>{text}</td>" for text in texts)
        name = re.sub("([:_])", r"\1<wbr>", html.escape(row.name))  # where long ones may break on a phone
        body.append(f"<tr><th scope=row>{name}</th>{cells}</tr>")
    absent = [f"{METRICS[name][0]} {_absence(name)}." for name in METRICS if rows and rows[0].scores[name] is None]
    return (
        f"<table><thead><tr>{''.join(f'<th>{text}</th>' for text in headings)}</tr></thead>"
        f"<tbody>{''.join(body)}</tbody></table>{''.join(f'<p>{text}</p>' for text in absent)}"
    )


def seconds_per_megapixel(results: Path = RESULTS) -> dict[str, float]:
    """Return the median speed of each method on a CPU, over the records in `results` that were timed."""
    found: dict[str, list[float]] = {}
    for record in read_folder(results)[0].values() if results.is_dir() else ():
        if record.speed and record.speed.device == "cpu" and record.speed.megapixels_median:
            speed = record.speed.seconds_median / record.speed.megapixels_median
            found.setdefault(record.method.name, []).append(speed)
    return {name: median(speeds) for name, speeds in found.items()}
