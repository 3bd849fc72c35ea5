import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import record
from bench.errors import RecordError
from bench.record import DatasetInfo, Failure, Method, Record, Row, Speed, Summary

texts = st.text(max_size=20)
names = st.text(min_size=1, max_size=20)
counts = st.integers(0, 2**53)
floats = st.floats(allow_nan=False, allow_infinity=False)
failures = st.builds(Failure, id=texts, stage=texts, reason=texts)
summaries = st.builds(
    Summary,
    mean=st.none() | floats,
    low=st.none() | floats,
    high=st.none() | floats,
    count=counts,
    infinite=counts,
    direction=st.sampled_from(["up", "down"]),
    unit=texts,
    reference=st.booleans(),
)
methods = st.builds(
    Method,
    name=names,
    source=st.sampled_from(["model", "predictions"]),
    revision=st.none() | texts,
    weights_sha256=st.none() | texts,
    parameters=st.none() | counts,
    license=st.none() | texts,
    paper=st.none() | texts,
    trained_on=st.lists(texts, max_size=3),
)
records = st.builds(
    Record,
    method=methods,
    dataset=st.builds(DatasetInfo, name=names, samples=counts, pairs=counts, fingerprint=texts),
    protocol=names,
    metrics=st.dictionaries(names, summaries, max_size=3),
    failures=st.lists(failures, max_size=2),
    speed=st.none()
    | st.builds(Speed, seconds_median=floats, megapixels_median=floats, device=texts, dtype=texts, threads=counts),
    environment=st.dictionaries(texts, texts, max_size=3),
    key=texts,
    created=st.just("2025-03-01T12:00:00Z"),
)
rows = st.builds(
    Row,
    id=texts,
    width=st.none() | counts,
    height=st.none() | counts,
    seconds=st.none() | floats,
    failures=st.lists(failures, max_size=2),
    values=st.dictionaries(names, st.floats(allow_nan=False), max_size=3),
)


def make(**changes) -> Record:
    fields = {
        "method": Method(name="api", parameters=10, trained_on=["rendered"]),
        "dataset": DatasetInfo(name="sample", samples=3, pairs=2, fingerprint="ab"),
        "protocol": "native-v1",
        "metrics": {
            "psnr": Summary(
                mean=20.5, low=19.0, high=22.0, count=2, infinite=0, direction="up", unit="dB", reference=True
            )
        },
        "created": "2025-03-01T12:00:00Z",
    }
    return Record(**fields | changes)


@settings(deadline=None)  # the disk has its own time
@given(records)
def test_any_record_comes_back_as_it_was(tmp_path_factory, original):
    folder = tmp_path_factory.mktemp("records")
    path = original.write(folder)
    assert record.read(path) == original
    json.loads(path.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


@given(rows)
def test_any_row_comes_back_as_it_was(row):
    line = record.row_to_json(row)
    assert b"\n" not in line
    assert record.row_from_json(line) == row
    json.loads(line, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))


def test_per_image_values_as_parquet(tmp_path):
    import pyarrow.parquet as pq

    good = Row(id="a", width=4, height=3, seconds=0.5, values={"psnr": float("inf"), "niqe": 3.0})
    unpaired = Row(id="b", width=4, height=3, seconds=0.25, values={"niqe": 4.0})
    failed = Row(id="c", failures=(Failure(id="c", stage="read", reason="damaged"),))
    path = tmp_path / "rows.parquet"
    record.write_rows(path, [good, unpaired, failed], ["psnr", "niqe"], key="k")

    table = pq.read_table(path)
    assert table.column_names == ["id", "width", "height", "seconds", "failure", "psnr", "niqe"]
    assert [str(field.type) for field in table.schema][-2:] == ["double", "double"]
    assert table["psnr"].to_pylist() == [float("inf"), None, None]
    assert table["failure"].to_pylist() == [None, None, "read: damaged"]

    assert record.read_rows(path, key="k") == [good, unpaired]
    assert record.read_rows(path, key="another") == []
    path.write_bytes(path.read_bytes()[:-20])
    assert record.read_rows(path, key="k") == []


def test_file_names():
    assert make().stem == "api__sample__native-v1"
    assert record.stem("my method/2", "folder:a b", "p-v1") == "my-method-2__folder-a-b__p-v1"


def test_another_record_is_not_overwritten(tmp_path):
    make(method=Method(name="a b")).write(tmp_path)
    make(method=Method(name="a b"), key="newer").write(tmp_path)
    with pytest.raises(RecordError, match=r"a-b__sample__native-v1\.json holds the record of a b on sample"):
        make(method=Method(name="a-b")).write(tmp_path)


def test_a_newer_schema_is_refused(tmp_path):
    path = make().write(tmp_path)
    path.write_text(path.read_text().replace('"schema": 1', '"schema": 2'))
    with pytest.raises(RecordError, match=r"api__sample__native-v1\.json has schema 2 .* update"):
        record.read(path)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        (("metrics", "psnr", "mean"), "high"),
        (("metrics", "psnr", "mean"), float("nan")),
        (("metrics", "psnr", "direction"), "sideways"),
        (("metrics", "psnr", "count"), -1),
        (("dataset", "samples"), None),
        (("method", "name"), ""),
        (("created",), "yesterday"),
        (("surprise",), 1),
    ],
)
def test_a_malformed_record_names_file_and_field(tmp_path, field, value):
    path = make().write(tmp_path)
    content = json.loads(path.read_text())
    inner = content
    for part in field[:-1]:
        inner = inner[part]
    inner[field[-1]] = value
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError) as caught:
        record.read(path)
    assert path.name in str(caught.value)
    assert ".".join(field) in str(caught.value)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"{}", b"\xff\xfe", b'"text"'])
def test_what_is_no_record(tmp_path, content):
    path = tmp_path / "x.json"
    path.write_bytes(content)
    with pytest.raises(RecordError, match=r"x\.json is not a result record"):
        record.read(path)
    with pytest.raises(RecordError, match=r"missing\.json cannot be read: No such file"):
        record.read(tmp_path / "missing.json")


def test_a_write_that_fails_leaves_what_was_there(tmp_path, monkeypatch):
    path = make().write(tmp_path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RecordError, match="cannot be written: No space left"):
        replace(make(), key="other").write(tmp_path)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_reading_needs_no_torch():
    code = "import sys, bench.record; sys.exit('torch' in sys.modules)"
    root = Path(record.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", code], cwd=root).returncode == 0
