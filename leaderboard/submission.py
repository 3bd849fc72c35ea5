"""Check a result record that somebody hands in, in the open: every finding says what was looked at and what is wrong.

What is known of data sets, protocols and metrics comes from the catalogues of `bench`; nothing here runs a model. What
cannot be checked is said as well: whether the method made these numbers.
"""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from textwrap import shorten
from typing import Literal, get_args

import numpy as np

from bench.errors import ProtocolError, RecordError
from bench.record import RESULTS, DatasetInfo, Record, Row, Summary, read, read_folder, read_values
from bench.report.escape import markdown_text
from bench.schema import Look, name_in_look

MOST_IMAGES = 5_000  # the largest set that is listed has 4,807; intervals are computed again for all of them
_LONGEST_NAME = 200
_LONGEST_REASON = 200

Peers = Mapping[Path, Record]  # what was measured on the same bytes under the same protocol


@dataclass(frozen=True)
class Finding:
    """One thing that was looked at: right, wrong, or a note for whoever reviews."""

    subject: str
    verdict: Literal["right", "wrong", "note"]
    text: str


@dataclass(frozen=True)
class Submission:
    """A record with what was found about it; `record` is None where the files could not even be read."""

    path: Path
    record: Record | None
    findings: tuple[Finding, ...]

    @property
    def accepted(self) -> Record | None:
        """Return the record if it may be proposed, as nothing is wrong with it; else None."""
        return None if any(finding.verdict == "wrong" for finding in self.findings) else self.record

    def markdown(self) -> str:
        """Return the findings as a list."""
        return "\n".join(f"- **{one.subject}**, {one.verdict}: {markdown_text(one.text)}" for one in self.findings)


def check(path: Path, results: Path = RESULTS) -> Submission:
    """Check the record at `path` and the Parquet file beside it, against what `results` holds already.

    Looked at are the files (schema, hashes, belonging together), the data set with its fingerprint, the protocol,
    completeness, each mean and interval (computed again from the values), plausibility, and training data.
    """
    try:
        record = read(path)
        rows = read_values(path, record)
    except RecordError as error:
        return Submission(path, None, (Finding("files", "wrong", error.for_visitors()),))
    peers = {
        other_path: other
        for other_path, other in read_folder(results)[0].items()
        if (other.dataset.name, other.protocol) == (record.dataset.name, record.protocol)
    }
    whole = Finding("files", "right", f"schema {record.schema}, whole, and belonging together")
    findings = [whole, *_data_set(record, list(peers.values())), *_protocol(record)]
    if all(finding.verdict != "wrong" for finding in findings):
        alike = {place: peer for place, peer in peers.items() if peer.dataset.fingerprint == record.dataset.fingerprint}
        findings += [*_completeness(record, alike), *_values(record, rows), *_plausibility(record, rows, alike)]
        findings += [*_training(record), *_method(record, alike)]
    return Submission(path, record, tuple(findings))


def _data_set(record: Record, peers: list[Record]) -> Iterator[Finding]:
    subject, info = "data set", record.dataset
    known = _known(info.name)
    if known is None and not peers:
        yield Finding(subject, "wrong", f"{info.name} is not listed: see 'python -m bench list datasets'")
        return
    samples, pairs, fingerprint = known or (peers[0].dataset.samples, peers[0].dataset.pairs, None)
    wanted = {"images": (info.samples, samples), "pairs": (info.pairs, pairs)}
    if differing := [
        f"{count} {what}, not {whole}" for what, (count, whole) in wanted.items() if whole not in (None, count)
    ]:
        yield Finding(subject, "wrong", f"{info.name} with {' and '.join(differing)}: score all of it")
    elif info.samples > MOST_IMAGES:
        yield Finding(subject, "wrong", f"{info.samples} images are more than any listed set has: score a listed set")
    elif fingerprint not in (None, info.fingerprint):
        text = f"{info.fingerprint[:12]}, not {fingerprint[:12]}): get the set from its source, and score again"
        yield Finding(subject, "wrong", f"the images are not the bytes of {info.name} (fingerprint {text}")
    elif fingerprint or any(peer.dataset.fingerprint == info.fingerprint for peer in peers):
        yield Finding(subject, "right", f"{info.name}, fingerprint {info.fingerprint[:12]}, {info.samples} images")
    elif peers:
        yield Finding(
            subject, "note", f"{info.name}, but not the bytes entered so far: it will have a table of its own"
        )
    else:
        yield Finding(subject, "note", f"{info.name}, which nobody has entered: its bytes cannot be compared")


def _known(name: str) -> tuple[int | None, int | None, str | None] | None:
    """Return images, pairs and fingerprint of a listed set, each None where it is not known."""
    from bench.datasets import catalogue

    if name == "sample":
        info = _sample()
        return info.samples, info.pairs, info.fingerprint
    if name not in catalogue.names():
        return None
    entry = catalogue.get(name)
    return entry.samples, entry.pairs, entry.fingerprint


@cache
def _sample() -> DatasetInfo:
    from bench import datasets

    return datasets.load("sample").info


def _protocol(record: Record) -> Iterator[Finding]:
    from bench import protocol

    try:
        protocol.get(record.protocol)
        yield Finding("protocol", "right", record.protocol)
    except ProtocolError as error:
        yield Finding("protocol", "wrong", str(error))


def _completeness(record: Record, peers: Peers) -> Iterator[Finding]:
    subject, info = "completeness", record.dataset
    if record.failures:
        failed = ", ".join(
            shorten(f"{failure.id} ({failure.stage}: {failure.reason})", _LONGEST_REASON, placeholder=" …")
            for failure in record.failures[:3]
        )
        more = f" and {len(record.failures) - 3} more" if len(record.failures) > 3 else ""
        yield Finding(subject, "wrong", f"images failed: {failed}{more}. Run again: what is done is kept")
        return
    short = []
    for name, summary in record.metrics.items():
        count, wanted = summary.count + summary.infinite, info.pairs if summary.reference else info.samples
        if count != wanted:
            short.append(f"{name} on {count} of {wanted} images")
    if short or not record.metrics:
        yield Finding(subject, "wrong", f"{', '.join(short) or 'no metric'}: score all images by each metric")
        return
    yield Finding(subject, "right", f"{', '.join(record.metrics)} on every image")
    if lacking := sorted({name for peer in peers.values() for name in peer.metrics} - record.metrics.keys()):
        yield Finding(subject, "note", f"without {', '.join(lacking)}, which others have: no point from it in the rank")


def _values(record: Record, rows: Mapping[str, Row]) -> Iterator[Finding]:
    """Compute the summaries again from the values of the images."""
    from bench import metrics, protocol

    wrong = []
    for name, summary in record.metrics.items():
        if name not in metrics.names():
            wrong.append(f"{name} is not listed: see 'python -m bench list metrics'")
            continue
        spec = metrics.spec(name)
        if (summary.direction, summary.unit, summary.reference) != (spec.direction, spec.unit, spec.reference):
            wrong.append(f"{name} is described otherwise than this project computes it")
        values = _column(rows, name)
        if outside := [id_ for id_, value in values.items() if not spec.low <= value <= spec.high]:
            wrong.append(f"{name} of {outside[0]} is {values[outside[0]]:.4g}, not in {spec.low:g} to {spec.high:g}")
        mean, low, high, count = protocol.get(record.protocol).aggregate(name, np.array([*values.values()]))
        for what, ours, theirs in (
            ("mean", mean, summary.mean),
            ("lower bound", low, summary.low),
            ("upper bound", high, summary.high),
            ("count", count, summary.count),
        ):
            if not _agree(ours, theirs):
                wrong.append(f"the {what} of {name} is {theirs}, and its values give {ours}")
    yield from (Finding("values", "wrong", text) for text in wrong)
    if not wrong:
        yield Finding("values", "right", "means and intervals follow from the values of the images, all in range")


def _plausibility(record: Record, rows: Mapping[str, Row], peers: Peers) -> Iterator[Finding]:
    """Look for values that no method gives: the truth itself, one number for all images, another method's."""
    # A look may change nothing, so that both looks of a model have the same values.
    looks = {name_in_look(record.method.model, look) for look in get_args(Look)}
    own = looks if record.method.source == "model" else {record.method.name}
    others = {path: peer for path, peer in peers.items() if peer.method.name not in own}
    wrong = []
    # Where there is no haze, as in clear photographs that should be left alone, the input is the clear image.
    untouched = (peer.metrics.get("psnr") for peer in peers.values() if peer.method.name == "identity")
    expected = max((psnr.infinite for psnr in untouched if psnr), default=0)
    infinite = [id_ for id_, value in _column(rows, "psnr").items() if math.isinf(value)]
    if len(infinite) > expected:
        wrong.append(f"{infinite[0]} is its clear image, bit by bit: hand in what the method made of the hazy one")
    for name in () if expected else record.metrics:
        values = list(_column(rows, name).values())
        if len(values) > 2 and len(set(values)) == 1 and math.isfinite(values[0]):
            wrong.append(f"{name} is {values[0]:.6g} on every image, which no method gives")
    for path, peer in others.items():
        try:
            theirs = read_values(path, peer)
        except RecordError:  # a damaged neighbour is not this record's fault
            continue
        common = [name for name in record.metrics if name in peer.metrics]
        if common and all(_column(rows, name) == _column(theirs, name) for name in common):
            wrong.append(f"image by image these are the values of {peer.method.name}")
    now = datetime.now(UTC)
    if datetime.strptime(record.created, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC) > now + timedelta(days=1):
        wrong.append(f"it was made on {record.created[:10]}, which is not yet: set the clock right, and score again")
    if record.speed and not (record.speed.seconds_median > 0 and record.speed.megapixels_median > 0):
        wrong.append("no method takes no time: measure again")
    yield from (Finding("plausibility", "wrong", text) for text in wrong)
    if not wrong:
        yield Finding("plausibility", "right", "no sign of clear images, copied or made-up values")
    for name, summary in record.metrics.items():
        if best := _best([peer.metrics[name] for peer in others.values() if name in peer.metrics], summary):
            yield Finding(
                "plausibility", "note", f"{name} {summary.mean:.4g} is far beyond the best so far, {best:.4g}"
            )


def _best(others: list[Summary], own: Summary) -> float | None:
    """Return the best mean of the others if `own` is beyond it by more than they are apart, else None."""
    if own.direction == "one":  # nothing is beyond the best possible
        return None
    means = sorted((other.mean for other in others if other.mean is not None), reverse=own.direction == "down")
    if own.mean is None or len(means) < 2:
        return None
    beyond = own.mean - means[-1] if own.direction == "up" else means[-1] - own.mean
    return means[-1] if beyond > abs(means[-1] - means[0]) else None


def _training(record: Record) -> Iterator[Finding]:
    from bench.datasets import contaminated

    subject, method = "training data", record.method
    if not method.trained_on:
        if method.parameters != 0:
            yield Finding(subject, "note", "not stated, and the board says so: name the sets with --trained-on")
        return
    overlapping = tuple(contaminated(record.dataset.name, method.trained_on))
    if record.contaminated not in (None, overlapping):
        yield Finding(
            subject, "wrong", f"{', '.join(overlapping) or 'nothing'} of it overlaps the set, not "
            f"{', '.join(record.contaminated) or 'nothing'}: score again",
        )  # fmt: skip
    elif overlapping:
        yield Finding(subject, "note", f"{', '.join(overlapping)} overlaps the set: the board marks the method with †")
    else:
        yield Finding(subject, "right", f"{', '.join(method.trained_on)}: no overlap with the set is known")


def _method(record: Record, peers: Peers) -> Iterator[Finding]:
    name, stem = record.method.name, record.stem
    if len(stem) > _LONGEST_NAME:
        yield Finding("method", "wrong", f"{name[:40]}… is too long a name for a file: choose a shorter one")
    elif any(peer.stem == stem and peer.method.name != name for peer in peers.values()):
        yield Finding("method", "wrong", f"{name} would take the file of a method with a like name: choose another")
    elif any(peer.method.name == name for peer in peers.values()):
        yield Finding("method", "note", f"{name} is on the board already, and this would replace it")
    if record.method.source != "predictions":
        text = "these numbers are claimed: nobody here ran the model. Scored predictions weigh more"
        yield Finding("method", "note", text)


def _column(rows: Mapping[str, Row], metric: str) -> dict[str, float]:
    return {id_: row.values[metric] for id_, row in rows.items() if metric in row.values}


def _agree(ours: float | None, theirs: float | None) -> bool:
    if ours is None or theirs is None:
        return ours is theirs
    return math.isclose(ours, theirs, rel_tol=1e-9, abs_tol=1e-12)
