import json
import subprocess
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bench import record
from bench.errors import RecordError
from bench.record import DatasetInfo, Failure, Identity, Method, Record, Row, Speed, Summary
from bench.schema import Adjustment, Look, name_in_look
from dehaze.adjust import LOOKS, Adjustments
from tests.bench.helpers import make

GOLDEN = Path(__file__).parents[1] / "golden"

texts = st.text(max_size=20)
names = st.text(min_size=1, max_size=20).filter(lambda name: name.isprintable() and name == name.strip())
counts = st.integers(0, 2**53)
floats = st.floats(-1e18, 1e18)
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


def in_look(name, look, adjustments, **more):
    return Method(name=name_in_look(name, look, adjustments), look=look, adjustments=adjustments, **more)


methods = st.builds(
    in_look,
    name=names,
    source=st.sampled_from(["model", "predictions"]),
    revision=st.none() | texts,
    weights_sha256=st.none() | texts,
    config_sha256=st.none() | texts,
    code=st.none() | texts,
    parameters=st.none() | counts,
    license=st.none() | texts,
    paper=st.none() | texts,
    trained_on=st.lists(texts, max_size=3),
    look=st.sampled_from([None, "photo", "faithful"]),
    adjustments=st.dictionaries(st.sampled_from(get_args(Adjustment)), st.floats(0, 1), max_size=3),
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


@pytest.mark.slow
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
    path.write_text(path.read_text().replace('"schema": 4', '"schema": 5'))
    with pytest.raises(RecordError, match=r"api__sample__native-v1\.json has schema 5, .* Update"):
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


def test_the_projects_own_records_are_read_with_their_values():
    records, broken = record.read_folder(record.RESULTS)
    assert records and not broken
    for path, found in records.items():
        assert len(record.read_values(path, found)) == found.dataset.samples


@pytest.mark.parametrize("schema", [1])
def test_records_of_every_past_schema_are_read(schema):
    path = GOLDEN / f"record-schema-{schema}.json"
    assert json.loads(path.read_text())["schema"] == schema
    found = record.read(path)
    assert (found.method.name, found.dataset.samples, found.contaminated) == ("dcp", 18, None)
    assert found.metrics["psnr"].mean == json.loads(path.read_text())["metrics"]["psnr"]["mean"]
    assert len(record.read_values(path, found)) == 18


def test_schema_1_says_nothing_of_contamination(tmp_path):
    path = make(contaminated=("rendered",)).write(tmp_path)
    assert record.read(path).contaminated == ("rendered",)
    content = json.loads(path.read_text())
    for later in ("sha256", "contaminated"):
        del content[later]
    for later in ("config_sha256", "code", "look", "adjustments"):
        del content["method"][later]
    path.write_text(json.dumps(content | {"schema": 1}))
    assert record.read(path) == make()
    path.write_text(json.dumps(content | {"schema": 1, "sha256": "0" * 64}))
    with pytest.raises(RecordError, match="sha256: Unexpected"):
        record.read(path)


def test_schema_2_has_its_code_in_the_environment_and_no_configuration():
    path = GOLDEN / "record-schema-2.json"
    content, found = json.loads(path.read_text()), record.read(path)
    assert content["schema"] == 2 and found.schema == record.SCHEMA
    method = found.method
    assert (method.name, method.config_sha256, found.contaminated) == ("api", None, ())
    assert (
        method.code == content["environment"]["code"] and method.weights_sha256 == content["method"]["weights_sha256"]
    )
    assert len(record.read_values(path, found)) == found.dataset.samples == 18
    today = Identity(weights_sha256=method.weights_sha256, config_sha256="any", code=method.code)
    assert record.same_output(found, today)
    assert not record.same_output(found, replace(today, code="later"))
    assert not record.same_output(found, replace(today, weights_sha256="others"))


def test_records_before_schema_4_have_no_look():
    path = GOLDEN / "record-schema-3.json"
    content, found = json.loads(path.read_text()), record.read(path)
    assert content["schema"] == 3 and found.schema == record.SCHEMA
    assert (found.method.look, found.method.adjustments, found.method.model) == (None, {}, "api")
    assert found.method.config_sha256 == content["method"]["config_sha256"]
    assert found.metrics["psnr"].mean == content["metrics"]["psnr"]["mean"]
    assert len(record.read_values(path, found)) == found.dataset.samples == 18


@pytest.mark.parametrize(
    ("look", "adjustments", "name", "stem"),
    [
        (None, {}, "api", "api"),
        ("faithful", {}, "api", "api"),
        ("photo", {}, "api (photo)", "api-photo-"),
        ("faithful", {"skies": 0.0}, "api (skies 0)", "api-skies-0-"),
        (
            "photo",
            {"skies": 0.25, "colour": 1.0},
            "api (photo, skies 0.25, colour 1)",
            "api-photo-skies-0.25-colour-1-",
        ),
    ],
)
def test_the_look_and_the_adjustments_are_part_of_the_name(look, adjustments, name, stem):
    assert name_in_look("api", look, adjustments) == name
    made = make(method=Method(name=name, look=look, adjustments=adjustments))
    assert made.method.model == "api"
    assert made.stem == f"{stem}__sample__native-v1"


def test_looks_and_adjustments_of_records_are_those_of_the_models():
    assert set(get_args(Look)) == set(LOOKS)
    assert get_args(Adjustment) == tuple(field.name for field in fields(Adjustments))


@pytest.mark.parametrize(
    ("field", "value"), [("look", "vivid"), ("adjustments", {"skies": 2}), ("adjustments", {"x": 0})]
)
def test_an_unknown_look_or_amount_is_refused(tmp_path, field, value):
    path = make().write(tmp_path)
    content = json.loads(path.read_text())
    content["method"][field] = value
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match=f"method.{field}"):
        record.read(path)


@pytest.mark.parametrize(("field", "value"), [("look", "photo"), ("adjustments", {"skies": 0.0})])
def test_a_name_that_hides_the_look_or_the_adjustments_is_refused(tmp_path, field, value):
    path = make().write(tmp_path)
    content = json.loads(path.read_text())
    content["method"][field] = value
    path.write_text(json.dumps(content))
    with pytest.raises(RecordError, match=r"method: Name should end in \((photo|skies 0)\)"):
        record.read(path)


def test_a_record_of_schema_2_that_was_changed_is_noticed(tmp_path):
    path = tmp_path / "changed.json"
    text = (GOLDEN / "record-schema-2.json").read_text()
    path.write_text(text.replace('"code": "', '"code": "0'))
    with pytest.raises(RecordError, match="was changed after it was written"):
        record.read(path)


def test_every_part_of_an_identity_counts():
    identity = Identity(weights_sha256="w", config_sha256="c", code="1")
    made = make(method=Method(name="api", weights_sha256="w", config_sha256="c", code="1"))
    assert record.same_output(made, identity)
    for field in ("weights_sha256", "config_sha256", "code"):
        for other in ("another", None):
            assert not record.same_output(made, replace(identity, **{field: other}))
    predictions = make(method=replace(made.method, source="predictions"))
    assert not record.same_output(predictions, identity)
    assert not record.same_output(make(), Identity())  # who knows no code knows nothing


def test_a_number_changed_by_hand_is_noticed(tmp_path):
    path = make().write(tmp_path)
    path.write_text(path.read_text().replace("20.5", "21.5"))
    with pytest.raises(RecordError, match="was changed after it was written"):
        record.read(path)
