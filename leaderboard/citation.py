"""BibTeX for a table: the comparison itself, and the methods in it as far as their records say where they appeared."""

import re

from bench.record import Method
from bench.report.table import Table

_ARXIV = re.compile(r"arxiv\.org/(?:abs|pdf)/(?P<id>\d{4}\.\d{4,5})")


def bibtex(table: Table) -> str:
    """Return an entry for the table and one for each method that states its paper; the others are named in a comment.

    Records hold no titles and authors: an arXiv number stands for them, and reference managers complete it.
    """
    entries = [_entry(_comparison(table))]
    entries += [_entry(_paper(record.method)) for record in table.records if record.method.paper]
    if silent := [record.method.name for record in table.records if not record.method.paper]:
        entries.append(f"% no paper stated: {', '.join(silent)}")
    return "\n\n".join(entries) + "\n"


def _comparison(table: Table) -> tuple[str, dict[str, str]]:
    info = table.dataset
    dates = sorted(record.created[:10] for record in table.records)
    return f"dehaze-{info.name}-{table.protocol}", {
        "title": f"Dehazing methods on {_text(info.name)} under {_text(table.protocol)}",
        "year": dates[-1][:4],
        "note": f"{len(dates)} methods, scored from {dates[0]} to {dates[-1]}; "
        f"{info.samples} images, fingerprint {info.fingerprint[:16]}",
    }


def _paper(method: Method) -> tuple[str, dict[str, str]]:
    fields = {"title": _text(method.name)}
    if arxiv := _ARXIV.search(method.paper):
        fields |= {"eprint": arxiv["id"], "archiveprefix": "arXiv"}
    if method.paper.startswith(("http://", "https://")):
        return method.name, fields | {"howpublished": rf"\url{{{method.paper}}}"}
    return method.name, fields | {"howpublished": _text(method.paper)}


def _entry(entry: tuple[str, dict[str, str]]) -> str:
    name, fields = entry
    key = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-")
    lines = "".join(f"  {field} = {{{value}}},\n" for field, value in fields.items())
    return f"@misc{{{key},\n{lines}}}"


def _text(text: str) -> str:
    return re.sub(r"([&%$#_{}])", r"\\\1", " ".join(text.split()))
