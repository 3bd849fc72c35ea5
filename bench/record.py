"""The result record: one JSON file a method × data set × protocol, per-image values in a Parquet file beside it.

Reading a record needs neither torch nor a model. Both files carry a hash of what they hold, so that a byte that changed
since they were written is noticed and never becomes a number in a table. Strangers write records too: what is read is
bounded, and names are names.
"""

import hashlib
import json
import math
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from bench import parquet
from bench.errors import DamagedRecordError, RecordError
from bench.schema import (
    LARGEST,
    MOST_BYTES,
    MOST_IMAGES,
    MOST_METRICS,
    STRICT,
    Count,
    DatasetInfo,
    Failure,
    Id,
    Identity,
    Method,
    Name,
    Row,
    Speed,
    Summary,
    Text,
    Texts,
    Time,
)

SCHEMA = 4
_FETCH, _FETCH_BOTH = "Fetch it again, or score again.", "Fetch both again, or score again."
RESULTS = Path(__file__).resolve().parent.parent / "leaderboard" / "results"  # the project's own records


@dataclass(frozen=True, kw_only=True, config=STRICT)
class Record:
    """The result of one method on one data set under one protocol.

    `tiled` gives the side of the tiles in pixels for each image that was restored in tiles for want of memory.
    `contaminated` names the training sets of the method that overlap the data set; it is None where nobody knows: the
    training sets are not stated, or the record is older than the question (schema 1).
    """

    schema: Literal[4] = SCHEMA
    method: Method
    dataset: DatasetInfo
    protocol: Name
    metrics: Annotated[dict[Name, Summary], Field(max_length=MOST_METRICS)]
    failures: Annotated[tuple[Failure, ...], Field(fail_fast=True)] = ()
    tiled: dict[Id, Count] = Field(default_factory=dict)
    contaminated: Texts | None = None
    speed: Speed | None = None
    environment: Annotated[dict[Text, Text], Field(max_length=200)] = Field(default_factory=dict)
    key: Text = ""  # hash of everything that decides the values; a run is reused only where it is the same
    created: Time

    @property
    def stem(self) -> str:
        """Return the name of the record's files, without suffix."""
        return stem(self.method.name, self.dataset.name, self.protocol)

    def write(self, folder: str | Path) -> Path:
        """Write the record into `folder` atomically and return its path.

        Raises RecordError if something else already has the file name, or if the file cannot be written.
        """
        earlier(folder, self.method.name, self.dataset.name, self.protocol)
        path = Path(folder) / f"{self.stem}.json"
        content = _RECORD.dump_python(self, mode="json")
        content["sha256"] = _hash(content)
        write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False).encode() + b"\n")
        return path


_RECORD = TypeAdapter(Record)
_ROW_JSON = TypeAdapter(Row)

# What a Parquet file holds before the metrics.
_COLUMNS = {"id": "string", "width": "int64", "height": "int64", "seconds": "double", "failure": "string"}


def stem(method: str, dataset: str, protocol: str) -> str:
    """Return the file name, without suffix, that the record of a method on a data set under a protocol has."""
    return "__".join(re.sub(r"[^A-Za-z0-9._+-]+", "-", part) for part in (method, dataset, protocol))


def read(path: str | Path) -> Record:
    """Read a record of this schema or an earlier one.

    Raises RecordError that names the file and what is wrong: too many bytes, a malformed field, a newer schema, or
    content that is not what was written.
    """
    path = Path(path)
    data = _read_bytes(path, MOST_BYTES[".json"])
    try:
        content = json.loads(data, object_pairs_hook=_once)
        schema = content["schema"]
        if type(schema) is not int:
            raise TypeError
        # A record of schema 1 carries no hash: it is intact as far as anybody can tell.
        intact = schema == 1 or content.pop("sha256", None) == _hash(content)
        text = json.dumps(_migrated(content))
    except (ValueError, KeyError, TypeError, RecursionError):
        why = "no JSON object with a whole number 'schema' and each field once"
        raise DamagedRecordError(f"is not a result record: {why}.", subject=path) from None
    if schema > SCHEMA:
        raise RecordError(
            f"has schema {_shown(schema)}, and this version reads up to {SCHEMA}.", "Update the project.", subject=path
        )
    try:
        found = _RECORD.validate_json(text, strict=True)  # a number in quotes, or true for 1, is no number
    except ValidationError as error:
        raise DamagedRecordError(f"does not fit the schema: {complaints(error)}.", subject=path) from None
    if not intact:
        raise DamagedRecordError("was changed after it was written.", _FETCH, subject=path)
    return found


def same_model(record: Record, identity: Identity) -> bool:
    """Tell whether a record scored a model of these weights and this configuration, with whatever code.

    A record of schema 1 or 2 has no configuration hash: its weights decide.
    """
    method = record.method
    return (
        method.source == "model"
        and method.weights_sha256 == identity.weights_sha256
        and method.config_sha256 in (None, identity.config_sha256)
    )


def same_output(record: Record, identity: Identity) -> bool:
    """Tell whether a model of this identity gives the output that the record stands for: same model and same code."""
    return same_model(record, identity) and identity.code is not None and record.method.code == identity.code


def read_folder(folder: str | Path) -> tuple[dict[Path, Record], list[RecordError]]:
    """Read every record in `folder`, sorted by file name, and say which cannot be read.

    Raises RecordError if there is no such folder.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise RecordError(
            "is not a folder.", setting=f"Make records with 'python -m bench run --output {folder}'.", subject=folder
        )
    records, broken = {}, []
    for path in sorted(folder.glob("*.json")):
        try:
            records[path] = read(path)
        except RecordError as error:
            broken.append(error)
    return records, broken


def select(
    folder: str | Path, dataset: str | None = None, protocol: str | None = None
) -> tuple[dict[Path, Record], list[RecordError]]:
    """Read the records in `folder` of one data set or protocol, or of all, and say which files cannot be read.

    Raises RecordError if there is none.
    """
    found, broken = read_folder(folder)
    fitting = {
        path: record
        for path, record in found.items()
        if dataset in (None, record.dataset.name) and protocol in (None, record.protocol)
    }
    if not found:
        unread = f" ({broken[0]})" if broken else ""
        raise RecordError(
            "holds no record that can be read.",
            setting=f"'python -m bench run --output {folder}' makes some.{unread}",
            subject=Path(folder),
        )
    if not fitting:
        there = sorted({f"{record.dataset.name} under {record.protocol}" for record in found.values()})
        raise RecordError("No record fits.", f"There are records of {', '.join(there)}.")
    return fitting, broken


def earlier(folder: str | Path, method: str, dataset: str, protocol: str) -> Record | None:
    """Return the record that `folder` holds of a method on a data set under a protocol, None if there is none.

    Raises RecordError if the file is malformed, or if its name is that of another record ("a b" and "a-b" share one).
    """
    path = Path(folder) / f"{stem(method, dataset, protocol)}.json"
    if not os.path.lexists(path):
        return None
    found = read(path)
    there = (found.method.name, found.dataset.name, found.protocol)
    if there != (method, dataset, protocol):
        raise RecordError(
            f"holds the record of {' on '.join(there[:2])}.", "Take another folder or another name.", subject=path
        )
    return found


def set_aside(path: Path) -> Path | None:
    """Rename a record, and the Parquet file beside it, so that the run can write its own; return the record's new path.

    No file is overwritten. Returns None if the record is gone already. Raises RecordError.
    """
    ends = (".damaged", *(f".damaged{number}" for number in range(2, 1000)))
    files = [path, path.with_suffix(".parquet")]
    try:
        free = next(end for end in ends if not any(os.path.lexists(f"{file}{end}") for file in files))
        for file in files:
            if os.path.lexists(file):
                file.rename(f"{file}{free}")
    except OSError as error:
        raise RecordError(f"cannot be renamed: {error.strerror}.", subject=path) from error
    kept = Path(f"{path}{free}")
    return kept if os.path.lexists(kept) else None


def write_rows(path: str | Path, rows: Sequence[Row], metrics: Sequence[str], key: str) -> None:
    """Write the per-image values as Parquet, atomically: id, width, height, seconds, failure, a column for each metric.

    A metric that does not apply to an image, or failed on it, is null.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "id": pa.array([row.id for row in rows], pa.string()),
        "width": pa.array([row.width for row in rows], pa.int64()),
        "height": pa.array([row.height for row in rows], pa.int64()),
        "seconds": pa.array([row.seconds for row in rows], pa.float64()),
        "failure": pa.array([_failure_text(row) for row in rows], pa.string()),
    }
    columns |= {name: pa.array([row.values.get(name) for row in rows], pa.float64()) for name in metrics}
    table = pa.table(columns)
    sink = pa.BufferOutputStream()
    pq.write_table(table.replace_schema_metadata({"key": key, "sha256": _hash(table.to_pylist())}), sink)
    write_atomic(Path(path), sink.getvalue().to_pybytes())


def read_rows(path: str | Path, key: str, images: int = 0) -> list[Row]:
    """Read the rows without failure from a Parquet file that `key` wrote; another's, or a damaged one, gives none.

    A set of one's own may have more `images` than are read of a stranger's.
    """
    try:
        rows, metadata = _read_parquet(Path(path), max(images, MOST_IMAGES))
    except RecordError:
        return []
    return [row for row in rows if not row.failures] if metadata["key"] == key else []


def read_values(path: str | Path, record: Record) -> dict[str, Row]:
    """Read the rows, by image, of the `record` that was read from `path`; those of images that failed as well.

    Raises RecordError if the Parquet file beside it is missing, damaged, of another run, or disagrees with the record.
    """
    path = Path(path).with_suffix(".parquet")
    read, metadata = _read_parquet(path, MOST_IMAGES)
    rows = {row.id: row for row in read}
    failed = {row.id for row in read if row.failures}
    if metadata["key"] != record.key or not len(rows) == len(read) == record.dataset.samples:
        raise RecordError("does not belong to the record beside it.", _FETCH_BOTH, subject=path)
    if failed != {failure.id for failure in record.failures}:
        raise RecordError("and the record beside it disagree on what failed.", _FETCH_BOTH, subject=path)
    for name, summary in record.metrics.items():
        values = [row.values[name] for row in read if name in row.values]
        finite = [value for value in values if math.isfinite(value)]
        agrees = len(values) == summary.count + summary.infinite
        if agrees and finite and "sha256" not in metadata:  # schema 1: the means are all there is to check against
            mean = math.fsum(finite) / len(finite)
            agrees = summary.mean is not None and math.isclose(mean, summary.mean, rel_tol=1e-9, abs_tol=1e-12)
        if not agrees:
            raise RecordError(f"and the record beside it disagree on {name}.", _FETCH_BOTH, subject=path)
    return rows


def row_to_json(row: Row) -> bytes:
    """Return `row` as one line of JSON, without its line end."""
    return _ROW_JSON.dump_json(row)


def row_from_json(line: bytes) -> Row:
    """Read what `row_to_json` wrote. Raises ValueError if the line is damaged."""
    return _ROW_JSON.validate_json(line)


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds either what it held or all of `data`, even after a power cut.

    Its folder is made if there is none. Raises RecordError.
    """
    from dehaze.errors import OutputError
    from dehaze.io.files import write_whole  # loads torch, which reading records does without

    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, data)
    except OutputError as error:
        raise RecordError(error.reason, error.advice, subject=path) from error
    except OSError as error:
        raise RecordError(f"cannot be written: {error.strerror}.", subject=path) from error


def _migrated(content: dict[str, Any]) -> dict[str, Any]:
    """Return the content of a record of an earlier schema as this schema has it; what is malformed stays malformed."""
    schema = content["schema"]
    if schema == 1:
        content = content | {"contaminated": None}
    if schema in (1, 2):
        method, environment = content.get("method"), content.get("environment")
        if isinstance(method, dict) and isinstance(environment, dict) and method.get("source", "model") == "model":
            content["method"] = method | {"code": environment.get("code")}
    if schema in range(1, SCHEMA):
        content = content | {"schema": SCHEMA}
    return content


def _hash(content: Any) -> str:
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """Return the fields of a JSON object. Raises ValueError if one is there twice: readers differ on which counts."""
    fields = dict(pairs)
    if len(fields) < len(pairs):
        raise ValueError("a field is there twice")
    return fields


def _read_bytes(path: Path, most: int) -> bytes:
    """Read a file. Raises RecordError if that would wait or never end, or if there are more than `most` bytes."""
    try:
        if path.exists() and not path.is_file():
            raise RecordError("is a folder, a pipe or a device.", "Give a file.", subject=path)
        with path.open("rb") as file:
            data = file.read(most + 1)
    except OSError as error:
        raise RecordError(f"cannot be read: {error.strerror}.", subject=path) from None
    if len(data) > most:
        raise RecordError(f"has more than {most / 1e6:g} MB, which no record needs.", "Score again.", subject=path)
    return data


def _read_parquet(path: Path, images: int) -> tuple[list[Row], dict[str, str]]:
    """Read what `write_rows` wrote, and its metadata: key, and, since schema 2, sha256 of the content.

    The failures of an image come back as one. Raises RecordError if the file is missing, damaged, or larger than the
    values of any record.
    """
    if not path.exists():
        raise RecordError(
            "is missing.", "It holds the values of each image and belongs beside the record.", subject=path
        )
    data = _read_bytes(path, MOST_BYTES[".parquet"] * images // MOST_IMAGES)
    try:
        table = parquet.read(data, _COLUMNS, MOST_METRICS, images)
        metadata = {name.decode(): value.decode() for name, value in table.schema.metadata.items()}
        lines = table.to_pylist()
        digest = _hash(lines)
        rows = [_row(line) for line in lines]
        sound = metadata.keys() in ({"key"}, {"key", "sha256"}) and metadata.get("sha256", digest) == digest
        numbers = (number for row in rows for number in row.values.values() if math.isfinite(number))
        sound = sound and all(abs(number) <= LARGEST for number in numbers)
    except Exception as error:  # damaged bytes raise many kinds
        raise RecordError(f"is damaged ({type(error).__name__}).", _FETCH, subject=path) from None
    if not sound:
        raise RecordError("is damaged, or was not written by this project.", _FETCH, subject=path)
    return rows, metadata


def _row(line: dict[str, Any]) -> Row:
    image = {name: line.pop(name) for name in ("id", "width", "height", "seconds")}
    stage, _, reason = (line.pop("failure") or "").partition(": ")
    failures = (Failure(id=image["id"], stage=stage, reason=reason),) if stage else ()
    return Row(**image, failures=failures, values={name: value for name, value in line.items() if value is not None})


def _failure_text(row: Row) -> str | None:
    return "; ".join(f"{failure.stage}: {failure.reason}" for failure in row.failures) or None


def complaints(error: ValidationError) -> str:
    """Say in one line which fields are wrong, and how."""
    parts = [
        f"{'.'.join(map(_shown, part['loc'])) or 'record'}: {part['msg']}"
        for part in error.errors(include_url=False, include_context=False, include_input=False)
    ]
    more = f" (and {len(parts) - 3} more)" if len(parts) > 3 else ""
    return "; ".join(parts[:3]) + more


def _shown(field: str | int) -> str:
    """Return a field's name as a stranger may have written it: cut, and with escapes for what cannot be seen."""
    text = str(field)[:60]
    return text if text.isprintable() else ascii(text)
