"""Two methods side by side, image by image: where the one loses most against the other."""

from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from bench import compare
from bench.compare import Difference, Scored
from bench.record import Record
from bench.report.escape import markdown_text
from bench.report.table import ARROWS

if TYPE_CHECKING:
    from PIL import Image

    from bench.datasets import Sample


class Restored(NamedTuple):
    """A photograph restored now, by the code that the record was made with (`as_scored`), or by later code."""

    picture: "Image.Image"
    as_scored: bool


# Restores a photograph with the model of a record, or returns None where this cannot be done here.
Restore = Callable[[Record, Path], Restored | None]

HEADERS = ("image", "A", "B", "B − A")
Row = tuple[str, float | None, float | None, float | None]


def side_by_side(a: Scored, b: Scored, metric: str) -> tuple[Difference, list[Row]]:
    """Compare B with A by `metric`; return the difference, and rows of image, A, B and B − A.

    Where B loses most comes first, and images that only one of the two has a value for come last. Raises RecordError if
    the two must not be compared.
    """
    [found] = compare.compare(a, b, [metric])
    before, after = a.values(metric), b.values(metric)
    sign = 1 if found.direction == "up" else -1
    both = sorted(found.differences, key=lambda id_: (sign * found.differences[id_], id_))
    rows: list[Row] = [(id_, before[id_], after[id_], found.differences[id_]) for id_ in both]
    one_only = sorted(before.keys() ^ after.keys())
    return found, rows + [(id_, before.get(id_), after.get(id_), None) for id_ in one_only]


def verdict(found: Difference, a: str, b: str) -> str:
    """Say in Markdown what the difference shows."""
    count = len(found.differences)
    if not count:
        return f"No image has a value of {markdown_text(found.metric)} by both methods."
    metric, a, b = (f"**{markdown_text(name)}**" for name in (found.metric, a, b))
    text = f"By {metric} {ARROWS[found.direction]}, B ({b}) is better than A ({a}) on {found.wins} of {count} images"
    if found.ties:
        text += f", and equal on {found.ties}"
    if found.mean is not None:
        text += f"; B − A is {f'{found.mean:+.4g} {markdown_text(found.unit)}'.rstrip()} on average"
    if found.low is not None:
        text += f" (95 %: {found.low:+.3g} to {found.high:+.3g})"
    words = {"better": "B is better", "worse": "B is worse"}.get(found.verdict, "no difference is shown")
    return f"{text}. Wilcoxon signed-rank test: p = {found.p:.2g}; {words}."


@cache
def shipped() -> tuple[str, dict[str, "Sample"]]:
    """Return the fingerprint and the samples, by id, of the sample set: its photographs may be shown, and are here."""
    from bench import datasets

    dataset = datasets.load("sample")
    return dataset.fingerprint, {sample.id: sample for sample in dataset.samples}


def photographs(record: Record, image: str) -> "Sample | None":
    """Return an image of the record's data set with its clear one, None if they do not ship with the project."""
    if record.dataset.name != "sample":
        return None
    fingerprint, samples = shipped()
    return samples.get(image) if fingerprint == record.dataset.fingerprint else None


def pictures(records: tuple[Record, Record], image: str, restore: Restore | None) -> tuple[list[tuple], str]:
    """Return what can be shown of an image, as pairs of picture and caption, and a word in Markdown on what cannot.

    Records hold numbers and no pictures. The hazy and the clear photograph of the sample set ship with the project, and
    `restore` makes the restored ones anew; nothing is shown of other sets, whose photographs belong to others.
    """
    sample = photographs(records[0], image)
    if sample is None:
        name = markdown_text(records[0].dataset.name)
        return [], (
            f"Records hold numbers, not pictures, and the photographs of {name} are not ours to "
            "show. With a copy of the set, `python -m bench compare A B --sheet FILE` makes a contact sheet."
        )
    shown, without, later = [(_open(sample.hazy), "hazy")], [], []
    for letter, record in zip("AB", records, strict=True):
        restored = restore(record, sample.hazy) if restore else None
        if restored is None:
            without.append(record.method.name)
            continue
        if not restored.as_scored:
            later.append(record.method.name)
        shown.append(
            (restored.picture, f"{letter}: {record.method.name}{'' if restored.as_scored else ', code of today'}")
        )
    if sample.clear is not None:
        shown.append((_open(sample.clear), "clear"))
    text = f"{markdown_text(image)}: pictures of methods are made now, with the weights that were scored."
    if later:
        text += f" The code has changed since {_names(later)} was scored: its picture may differ from the one scored."
    if without:
        text += f" None of {_names(without)}: this page does not have the method, or has other weights by now."
    return shown, text


def _names(methods: Sequence[str]) -> str:
    return markdown_text(" and ".join(dict.fromkeys(methods)))


def _open(path: Path) -> "Image.Image":
    from PIL import Image

    with Image.open(path) as image:
        return image.convert("RGB")
