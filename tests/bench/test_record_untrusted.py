"""Records and values that somebody changed, that a disk damaged, or that a stranger wrote."""

import json
import os
import random
import time
from dataclasses import replace
from pathlib import Path

import pytest

from bench import record
from bench.errors import RecordError
from bench.record import Failure, Record, Row, Summary
from tests.bench.helpers import make

FAILED = Row(id="c", width=4, height=3, failures=(Failure(id="c", stage="niqe", reason="too small"),))
VALUES = [
    Row(id="a", width=4, height=3, seconds=0.5, values={"psnr": 19.0, "niqe": 3.0}),
    Row(id="b", width=4, height=3, seconds=0.25, values={"psnr": 22.0, "niqe": 4.0}),
    replace(FAILED, values={"psnr": float("inf")}),
]


def scored(folder) -> Path:
    """Write a record of three images with its values, and return its path."""
    psnr = Summary(mean=20.5, low=19.0, high=22.0, count=2, infinite=1, direction="up", unit="dB", reference=True)
    niqe = Summary(mean=3.5, low=3.0, high=4.0, count=2, direction="down", reference=False)
    written = make(metrics={"psnr": psnr, "niqe": niqe}, failures=FAILED.failures, key="k")
    record.write_rows(folder / f"{written.stem}.parquet", VALUES, ["psnr", "niqe"], "k")
    return written.write(folder)


def test_values_belong_to_their_record(tmp_path):
    path = scored(tmp_path)
    found = record.read(path)
    assert list(record.read_values(path, found).values()) == VALUES
    other = path.with_suffix(".parquet")
    record.write_rows(other, VALUES, ["psnr", "niqe"], "another")
    with pytest.raises(RecordError, match="does not belong to the record beside it"):
        record.read_values(path, found)
    record.write_rows(other, VALUES[:2], ["psnr", "niqe"], "k")
    with pytest.raises(RecordError, match="does not belong to the record beside it"):
        record.read_values(path, found)
    record.write_rows(other, VALUES, ["psnr"], "k")
    with pytest.raises(RecordError, match="disagree on niqe"):
        record.read_values(path, found)
    record.write_rows(other, [*VALUES[:2], replace(VALUES[2], failures=())], ["psnr", "niqe"], "k")
    with pytest.raises(RecordError, match="disagree on what failed"):
        record.read_values(path, found)
    other.unlink()
    with pytest.raises(RecordError, match=r"native-v1\.parquet is missing"):
        record.read_values(path, found)


def test_values_without_a_hash_are_checked_against_the_means(tmp_path):
    import pyarrow.parquet as pq

    path = scored(tmp_path)
    table = pq.read_table(path.with_suffix(".parquet")).replace_schema_metadata({"key": "k"})
    pq.write_table(table, path.with_suffix(".parquet"))
    found = record.read(path)
    assert list(record.read_values(path, found).values()) == VALUES
    psnr = replace(found.metrics["psnr"], mean=20.6)
    with pytest.raises(RecordError, match="disagree on psnr"):
        record.read_values(path, replace(found, metrics=found.metrics | {"psnr": psnr}))


def damaged(data: bytes, seed: int) -> bytes:
    """Flip bits of some bytes, cut off the end, swap two parts, or put in what does not belong there."""
    chance = random.Random(seed)
    one, other = sorted(chance.sample(range(len(data)), 2))
    if seed % 4 == 0:
        changed = bytearray(data)
        for place in chance.sample(range(len(data)), chance.choice([1, 1, 1, 8])):
            changed[place] ^= 1 << chance.randrange(8)
        return bytes(changed)
    if seed % 4 == 1:
        return data[:one]
    if seed % 4 == 2:
        middle = (one + other) // 2
        return data[:one] + data[middle:other] + data[one:middle] + data[other:]
    return data[:one] + chance.randbytes(8) + data[one:]


@pytest.mark.parametrize("suffix", [".json", ".parquet"])
def test_a_damaged_file_is_refused_or_reads_as_it_was(tmp_path, suffix):
    path = scored(tmp_path)
    expected = record.read(path), VALUES
    target = path.with_suffix(suffix)
    original = target.read_bytes()
    refused = 0
    for seed in range(200):
        target.write_bytes(damaged(original, seed))
        try:
            found = record.read(path)
            got = found, list(record.read_values(path, found).values())
        except RecordError as error:
            refused += 1
            assert target.name in str(error) and "\n" not in str(error)
        else:
            assert got == expected, seed
    assert refused > 150


def leaves(content, path=()):
    """Name every value in a JSON object, at any depth."""
    inner = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for name, value in inner:
        yield (*path, name)
        yield from leaves(value, (*path, name))


def test_a_value_of_another_type_is_refused_everywhere(tmp_path):
    path = scored(tmp_path)
    text = path.read_text()
    variants = 0
    for place in leaves(json.loads(text)):
        for wrong in (True, "12", 12, 1e400, None, [], {}, [[1]], {"a": 1}):
            content = json.loads(text)
            inner = content
            for part in place[:-1]:
                inner = inner[part]
            if inner[place[-1]] == wrong:
                continue
            inner[place[-1]] = wrong
            path.write_text(json.dumps(content))
            with pytest.raises(RecordError, match=path.name):
                record.read(path)
            variants += 1
    assert variants > 200


@pytest.mark.parametrize("change", ["type", "double column", "missing column", "no id", "negative"])
def test_a_table_of_another_kind_is_refused(tmp_path, change):
    import pyarrow as pa
    import pyarrow.parquet as pq

    path = scored(tmp_path)
    table = pq.read_table(path.with_suffix(".parquet")).replace_schema_metadata({"key": "k"})
    if change == "type":
        table = table.set_column(5, "psnr", pa.array(["19", "22", "inf"]))
    elif change == "double column":
        table = table.append_column("psnr", table["niqe"])
    elif change == "missing column":
        table = table.drop_columns("seconds")
    elif change == "no id":
        table = table.set_column(0, "id", pa.array([None, "b", "c"], pa.string()))
    else:
        table = table.set_column(1, "width", pa.array([-4, 4, 4], pa.int64()))
    pq.write_table(table, path.with_suffix(".parquet"))
    with pytest.raises(RecordError, match="is damaged"):
        record.read_values(path, record.read(path))
    assert record.read_rows(path.with_suffix(".parquet"), "k") == []


def text_of(found: Record) -> str:
    content = record._RECORD.dump_python(found, mode="json")
    return json.dumps(content | {"sha256": record._hash(content)})


RECORD = text_of(make())
SUMMARY = '{"mean": 1, "low": 1, "high": 1, "count": 1, "direction": "up", "reference": true}'


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"schema":' + "[" * 200_000, "is not a result record"),
        ('{"schema": 2, "key":' + "[" * 500 + "]" * 500 + "}", "recursion limit"),
        (RECORD.replace('"parameters": 10', f'"parameters": {"9" * 4000}'), "method.parameters"),
        (RECORD.replace('"parameters": 10', f'"parameters": {"9" * 5000}'), "is not a result record"),
        (RECORD.replace('"parameters": 10', f'"parameters": {2**53 + 1}'), "method.parameters: Input should be less"),
        (RECORD.replace("20.5", "1e19"), "metrics.psnr.mean: Input should be less"),
        (RECORD.replace("20.5", "NaN"), "metrics.psnr.mean: Input should be a finite number"),
        (RECORD.replace("20.5", "1e999"), "metrics.psnr.mean: Input should be a finite number"),
        (f'{{"schema": {"9" * 4000}}}', "has schema 9999"),
        (RECORD.replace('"key"', '"protocol": "other", "key"'), "each field once"),
        (RECORD.replace('"name": "api"', '"name": "\\ud800"'), "hex escape"),
        (RECORD.replace('"name": "api"', '"name": "a\\u001b[2J"'), "method.name: Name should have no characters"),
        (RECORD.replace('"name": "api"', '"name": "a\\u202eipa"'), "method.name: Name should have no characters"),
        (RECORD.replace('"name": "api"', '"name": " api"'), "method.name: Name should have no characters"),
        (RECORD.replace('"psnr"', '"a\\nb"'), r"metrics.'a\nb'.[key]: Name should have no characters"),
        (RECORD.replace('"name": "api"', f'"name": "{"a" * 1_000_000}"'), "method.name: String should have at most"),
        (RECORD.replace('"rendered"', '"rendered",' * 200_000 + '"x"'), "has more than 2 MB"),
        (RECORD.replace('"rendered"', "0," * 200_000 + "0"), "method.trained_on.0: Input should be a valid string"),
        (RECORD.replace('"failures": []', f'"failures": [{"0," * 600_000}0]'), "failures.0: Input should be an object"),
        (RECORD.replace('"metrics": {', '"metrics": {' + "".join(f'"m{i}": {SUMMARY},' for i in range(10_000))),
         "metrics: Dictionary should have at most 40 items"),
        (RECORD.replace('"metrics": {', '"metrics": {' + "".join(f'"m{i}": 0,' for i in range(100_000))), "metrics.m0"),
        (RECORD.replace('"key": ""', f'"{"k" * 1000}": ""'), f"{'k' * 60}: Unexpected"),
        (RECORD.replace("2025-03-01T12", "2025-13-41T12"), "created"),
        (RECORD.replace("2025", "٢٠٢٥"), "created"),
    ],
    ids=range(24),
)  # fmt: skip
def test_what_strangers_may_write_is_refused_in_a_sentence(tmp_path, text, words):
    path = tmp_path / "x.json"
    path.write_text(text)
    before = time.process_time()
    with pytest.raises(RecordError) as caught:
        record.read(path)
    assert words in str(caught.value) and time.process_time() - before < 5
    assert str(caught.value).isprintable() and len(str(caught.value)) < 400 + len(str(tmp_path))
    assert caught.value.for_visitors() == str(caught.value).replace(f"{tmp_path}/", "")


def test_what_is_no_file_is_refused_and_not_waited_for(tmp_path):
    path = scored(tmp_path)
    values = path.with_suffix(".parquet")
    found = record.read(path)
    for at, read in ((path, lambda: record.read(path)), (values, lambda: record.read_values(path, found))):
        at.unlink()
        for make_other in (os.mkfifo, os.mkdir, lambda at: os.symlink("/dev/zero", at), lambda at: os.symlink(at, at)):
            make_other(at)
            with pytest.raises(
                RecordError, match=rf"{at.name} (is a folder, a pipe or a device|cannot be read|is missing)"
            ):
                read()
            assert not record.read_rows(values, "k") or at != values
            at.rmdir() if at.is_dir() and not at.is_symlink() else at.unlink()
    os.mkfifo(tmp_path / "pipe.json")
    assert [error.subject.name for error in record.read_folder(tmp_path)[1]] == ["pipe.json"]


def test_a_file_that_never_ends_is_read_no_further_than_its_bound(tmp_path):
    path = tmp_path / "x.json"
    with path.open("wb") as file:
        file.truncate(10**12)  # it takes no room
    with pytest.raises(RecordError, match=r"x\.json has more than 2 MB, which no record needs"):
        record.read(path)
    path.rename(path.with_suffix(".parquet"))
    with pytest.raises(RecordError, match=r"x\.parquet has more than 8 MB, which no record needs"):
        record.read_values(path, make())


def test_values_whose_sum_has_no_end_are_refused(tmp_path):
    path = scored(tmp_path)
    huge = [replace(VALUES[0], values={"psnr": 1e308, "niqe": 1e308}), *VALUES[1:]]
    record.write_rows(path.with_suffix(".parquet"), huge, ["psnr", "niqe"], "k")
    with pytest.raises(RecordError, match="parquet is damaged"):
        record.read_values(path, record.read(path))
