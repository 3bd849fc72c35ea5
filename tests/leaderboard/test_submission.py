"""Records that are handed in: what is right is accepted, and each way of being wrong is named."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from bench.record import MOST_BYTES, RESULTS, Failure, read
from leaderboard.submission import check


def wrong(found):
    return {finding.subject: finding.text for finding in found.findings if finding.verdict == "wrong"}


def notes(found):
    return [finding.text for finding in found.findings if finding.verdict == "note"]


def test_a_record_of_the_harness_is_accepted(enter, results, tmp_path):
    found = check(enter(tmp_path, trained_on=("clear-outdoor",)), results)
    assert found.accepted and not notes(found)
    assert [finding.subject for finding in found.findings] == [
        *("files", "data set", "protocol", "completeness", "values", "plausibility", "training data"),
    ]
    assert "- **data set**, right: sample, fingerprint" in found.markdown()


@pytest.mark.parametrize("name", ["*__clear-20__*", "*__sample__*", "TOENet__o-haze*"])
def test_the_projects_own_records_are_accepted(name):
    for path in RESULTS.glob(f"{name}.json"):
        assert not wrong(check(path))


@pytest.mark.parametrize(
    ("fields", "subject", "words"),
    [
        ({"dataset__name": "my-photos"}, "data set", "my-photos is not listed"),
        ({"dataset__fingerprint": "ab" * 32}, "data set", "not the bytes of sample (fingerprint abababababab"),
        ({"dataset__pairs": 9}, "data set", "sample with 9 pairs, not 10"),
        ({"protocol": "native-v9"}, "protocol", "Did you mean native-v1"),
        ({"contaminated": ("RESIDE",), "method__trained_on": ("SUN",)}, "training data", "nothing of it overlaps"),
        ({"method__name": "d.c p"}, "method", None),
        ({"created": f"{datetime.now(UTC) + timedelta(days=3):%Y-%m-%dT%H:%M:%SZ}"}, "plausibility", "not yet"),
    ],
)
def test_what_a_record_says_wrongly_is_named(enter, results, tmp_path, changed, fields, subject, words):
    found = check(enter(tmp_path, record=changed(**fields)), results)
    if words is None:  # a name that is only like another's has a file of its own
        assert found.accepted
    else:
        assert words in wrong(found)[subject] and not found.accepted


def test_a_name_that_takes_anothers_file_is_refused(enter, results, tmp_path):
    enter(results, "d c")
    assert "file of a method with a like name" in wrong(check(enter(tmp_path, "d-c"), results))["method"]


def test_means_must_follow_from_values(enter, results, tmp_path):
    def better(record):
        psnr = record.metrics["psnr"]
        return replace(record, metrics=record.metrics | {"psnr": replace(psnr, mean=psnr.mean + 0.01)})

    assert "the mean of psnr is 15.645" in wrong(check(enter(tmp_path, record=better), results))["values"]


def test_metrics_must_be_the_projects_own(enter, results, tmp_path):
    def renamed(record):
        return replace(
            record, metrics={"psnr": replace(record.metrics["psnr"], unit=""), "niqe": record.metrics["niqe"]}
        )

    assert "psnr is described otherwise" in wrong(check(enter(tmp_path, record=renamed), results))["values"]
    low = enter(tmp_path, values={"ssim": lambda i: 0.5 + 0.1 * i})
    assert (
        "ssim of" in wrong(check(low, results))["values"] and "not in -1 to 1" in wrong(check(low, results))["values"]
    )


def test_an_incomplete_record_is_refused(enter, results, tmp_path):
    def short(rows):
        return [replace(rows[0], values={"niqe": 3.0}), *rows[1:]]

    assert "psnr on 9 of 10 images" in wrong(check(enter(tmp_path, rows=short), results))["completeness"]

    def failing(rows):
        return [replace(rows[0], values={}, failures=(Failure(id=rows[0].id, stage="read", reason="cut"),)), *rows[1:]]

    def stated(record):
        return replace(record, failures=(Failure(id="avignon-palace", stage="read", reason="cut"),))

    found = check(enter(tmp_path, rows=failing, record=stated), results)
    assert "avignon-palace (read: cut)" in wrong(found)["completeness"]
    lacking = check(enter(tmp_path, values={"psnr": lambda i: 15 + i}), results)
    assert lacking.accepted and any("without niqe" in note for note in notes(lacking))


def test_values_that_no_method_gives_are_refused(enter, results, tmp_path):
    def plausibility(values):
        return wrong(check(enter(tmp_path, values=values), results)).get("plausibility")

    assert "is its clear image" in plausibility({"psnr": lambda i: math.inf if i == 3 else 15 + i})
    assert "psnr is 21 on every image" in plausibility({"psnr": lambda i: 21})
    copied = {"psnr": lambda i: 14 + 0.25 * i, "niqe": lambda i: 3.5 + 0.5 * (i % 3)}
    assert "the values of dcp" in plausibility(copied)
    untouched = {"psnr": lambda i: 12 + 0.5 * i}
    assert "the values of identity" in plausibility(untouched)


def test_what_a_reviewer_should_know_is_noted(enter, results, tmp_path, changed):
    found = check(enter(tmp_path, "dcp", {"psnr": lambda i: 40 + 0.3 * i}, source="model"), results)
    assert found.accepted
    for words in ("not stated", "would replace it", "nobody here ran the model", "without niqe"):
        assert words in " ".join(notes(found))
    found = check(enter(tmp_path, "new", {"psnr": lambda i: 40 + 0.3 * i}), results)
    assert found.accepted and "psnr 41.83 is far beyond the best so far" in " ".join(notes(found))


def test_files_that_do_not_belong_together_are_refused(enter, results, tmp_path):
    path = enter(tmp_path)
    other = enter(tmp_path / "other", "other")
    values = path.with_suffix(".parquet")
    whole = values.read_bytes()
    cases = {
        "does not belong": other.with_suffix(".parquet").read_bytes(),
        "damaged": whole[: len(whole) // 2],
    }
    for words, data in cases.items():
        values.write_bytes(data)
        assert words in wrong(check(path, results))["files"]
    values.unlink()
    assert (
        "is missing" in wrong(check(path, results))["files"]
        and str(tmp_path) not in wrong(check(path, results))["files"]
    )
    for text in (b"", b"[]", b"{", b'{"schema": 9}', path.read_bytes().replace(b"mine", b"ours")):
        path.write_bytes(text)
        found = check(path, results)
        assert not found.accepted and found.record is None and set(wrong(found)) == {"files"}


def test_files_that_would_fill_the_memory_are_refused_before_they_are_read(enter, results, tmp_path, monkeypatch):
    path = enter(tmp_path)
    values = path.with_suffix(".parquet")
    table = pq.read_table(values)
    sink = pa.BufferOutputStream()
    ids = pa.array(["x" * 1_000_000] * len(table))  # small on disk, as all are one
    pq.write_table(table.set_column(0, "id", ids), sink)
    bloated = sink.getvalue().to_pybytes()
    assert len(bloated) < 100_000
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink, compression="zstd")
    monkeypatch.setattr(pq.ParquetFile, "read", None)  # it would unpack them
    for data, words in (
        (bloated, "damaged (ParquetError)"),
        (sink.getvalue().to_pybytes(), "damaged (ParquetError)"),
        (bytes(MOST_BYTES[".parquet"] + 1), "more than 8 MB"),
    ):
        values.write_bytes(data)
        assert words in wrong(check(path, results))["files"]
    path.write_bytes(b" " * (MOST_BYTES[".json"] + 1))
    assert "more than 2 MB" in wrong(check(path, results))["files"]


def test_the_record_is_what_the_reader_reads(enter, results, tmp_path):
    path = enter(tmp_path)
    assert check(path, results).record == read(path)
