"""BibTeX for a table: the comparison itself, and the methods in it as far as their records say where they appeared."""

import re
from collections.abc import Iterator

from bench.report.escape import bibtex_text
from bench.report.table import Table

_ARXIV = re.compile(r"arxiv\.org/(?:abs|pdf)/(?P<id>[0-9]{4}\.[0-9]{4,5})")
_ADDRESS = re.compile(r"https?://[A-Za-z0-9./?=&_~:;,+()!'-]+")  # nothing in it means anything to LaTeX

Entry = tuple[str, dict[str, str]]  # key and fields


def bibtex(table: Table) -> str:
    """Return an entry for the table and one for each method that states its paper; the others are named in a comment.

    Records hold no titles and authors: an arXiv number stands for them, and reference managers complete it.
    """
    papers = [_paper(record.method.name, record.method.paper) for record in table.records if record.method.paper]
    entries = list(_rendered([_comparison(table), *papers]))
    if silent := [record.method.name for record in table.records if not record.method.paper]:
        # A comment ends at an @.
        entries.append(f"% no paper stated: {bibtex_text(', '.join(silent)).replace('@', '(at)')}")
    return "\n\n".join(entries) + "\n"


def _comparison(table: Table) -> Entry:
    info = table.dataset
    dates = sorted(record.created[:10] for record in table.records)
    return f"dehaze-{info.name}-{table.protocol}", {
        "title": f"Dehazing methods on {bibtex_text(info.name)} under {bibtex_text(table.protocol)}",
        "year": dates[-1][:4],
        "note": f"{len(dates)} methods, scored from {dates[0]} to {dates[-1]}; "
        f"{info.samples} images, fingerprint {bibtex_text(info.fingerprint[:16])}",
    }


def _paper(method: str, paper: str) -> Entry:
    fields = {"title": bibtex_text(method)}
    if arxiv := _ARXIV.search(paper):
        fields |= {"eprint": arxiv["id"], "archiveprefix": "arXiv"}
    plain = _ADDRESS.fullmatch(paper)
    return method, fields | {"howpublished": rf"\url{{{paper}}}" if plain else bibtex_text(paper)}


def _rendered(entries: list[Entry]) -> Iterator[str]:
    """Write the entries, each under a key of its own."""
    taken: set[str] = set()
    for name, fields in entries:
        wanted = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-") or "method"
        keys = (wanted, *(f"{wanted}-{number}" for number in range(2, len(entries) + 2)))
        key = next(key for key in keys if key.lower() not in taken)  # BibTeX takes no account of case
        taken.add(key.lower())
        lines = "".join(f"  {field} = {{{value}}},\n" for field, value in fields.items())
        yield f"@misc{{{key},\n{lines}}}"
