"""The result record: one JSON file a method × data set × protocol, per-image values in a Parquet file beside it.

Reading a record needs neither torch nor a model: the leaderboard is built on this module alone.
"""

import json
import os
import re
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass

from bench.errors import RecordError

SCHEMA = 1

# A record holds finite numbers alone; what has no value is None (null), what is infinite is counted.
_STRICT = ConfigDict(extra="forbid", allow_inf_nan=False)
# A row may hold an infinite PSNR, which JSON has no number for: it becomes the string "Infinity".
_ROW = ConfigDict(extra="forbid", ser_json_inf_nan="strings")

Count = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(min_length=1)]


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Method:
    """What was scored: a model of this project, or a folder of predictions of any method."""

    name: Name
    source: Literal["model", "predictions"] = "model"
    revision: str | None = None  # of the model's weights; of predictions, the hash of their bytes
    weights_sha256: str | None = None
    parameters: Count | None = None
    license: str | None = None
    paper: str | None = None
    trained_on: tuple[str, ...] = ()


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class DatasetInfo:
    """What it was scored on; `fingerprint` is a hash of the original bytes of every image."""

    name: Name
    samples: Count
    pairs: Count
    fingerprint: str


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Summary:
    """One metric over the set.

    `low` and `high` bound the mean (95 % bootstrap interval, fixed seed) and are None for fewer than two values; `mean`
    is None for none. `count` values are finite and make the mean; `infinite` ones (PSNR of identical images) are
    counted and left out of it.
    """

    mean: float | None
    low: float | None
    high: float | None
    count: Count
    infinite: Count = 0
    direction: Literal["up", "down"]
    unit: str = ""
    reference: bool


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Failure:
    """What went wrong with one image: `stage` is read, restore or the name of a metric."""

    id: str
    stage: str
    reason: str


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Speed:
    """How long the model took for an image of the median size, and on what."""

    seconds_median: float
    megapixels_median: float
    device: str
    dtype: str
    threads: Count


@dataclass(frozen=True, kw_only=True, config=_STRICT)
class Record:
    """The result of one method on one data set under one protocol."""

    schema: Literal[1] = SCHEMA
    method: Method
    dataset: DatasetInfo
    protocol: Name
    metrics: dict[str, Summary]
    failures: tuple[Failure, ...] = ()
    speed: Speed | None = None
    environment: dict[str, str] = Field(default_factory=dict)
    key: str = ""  # hash of everything that decides the values; a run is reused only where it is the same
    created: Annotated[str, Field(pattern=r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$")]  # ISO 8601, UTC

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
        write_atomic(path, _RECORD.dump_json(self, indent=2) + b"\n")
        return path


@dataclass(frozen=True, kw_only=True, config=_ROW)
class Row:
    """What one image gave: its size in pixels, the seconds the model took, a value for each metric that has one."""

    id: str
    width: Count | None = None
    height: Count | None = None
    seconds: float | None = None
    failures: tuple[Failure, ...] = ()
    values: dict[str, float] = Field(default_factory=dict)


_RECORD = TypeAdapter(Record)
_ROW_JSON = TypeAdapter(Row)


def stem(method: str, dataset: str, protocol: str) -> str:
    """Return the file name, without suffix, that the record of a method on a data set under a protocol has."""
    return "__".join(re.sub(r"[^A-Za-z0-9._+-]+", "-", part) for part in (method, dataset, protocol))


def read(path: str | Path) -> Record:
    """Read a record. Raises RecordError that names the file and the field if it is malformed or of a newer schema."""
    path = Path(path)
    try:
        text = path.read_bytes()
    except OSError as error:
        raise RecordError(f"{path} cannot be read: {error.strerror}") from None
    try:
        schema = json.loads(text)["schema"]
    except (ValueError, KeyError, TypeError):
        raise RecordError(f"{path} is not a result record: no JSON object with a field 'schema'") from None
    if isinstance(schema, int) and schema > SCHEMA:
        raise RecordError(f"{path} has schema {schema} and this version reads up to {SCHEMA}: update the project")
    try:
        return _RECORD.validate_json(text)
    except ValidationError as error:
        raise RecordError(f"{path}: {_complaints(error)}") from None


def earlier(folder: str | Path, method: str, dataset: str, protocol: str) -> Record | None:
    """Return the record that `folder` holds of a method on a data set under a protocol, None if there is none.

    Raises RecordError if the file is malformed, or if its name is that of another record ("a b" and "a-b" share one).
    """
    path = Path(folder) / f"{stem(method, dataset, protocol)}.json"
    if not path.exists():
        return None
    found = read(path)
    there = (found.method.name, found.dataset.name, found.protocol)
    if there != (method, dataset, protocol):
        raise RecordError(f"{path} holds the record of {' on '.join(there[:2])}: take another folder or another name")
    return found


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
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table(columns).replace_schema_metadata({"key": key}), sink)
    write_atomic(Path(path), sink.getvalue().to_pybytes())


def read_rows(path: str | Path, key: str) -> list[Row]:
    """Read the rows without failure from a Parquet file that `key` wrote; another's, or a damaged one, gives none."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException):
        return []
    if (table.schema.metadata or {}).get(b"key") != key.encode():
        return []
    rows = []
    for line in table.to_pylist():
        image = {name: line.pop(name) for name in ("id", "width", "height", "seconds")}
        if line.pop("failure") is None:
            rows.append(Row(**image, values={name: value for name, value in line.items() if value is not None}))
    return rows


def row_to_json(row: Row) -> bytes:
    """Return `row` as one line of JSON, without its line end."""
    return _ROW_JSON.dump_json(row)


def row_from_json(line: bytes) -> Row:
    """Read what `row_to_json` wrote. Raises ValueError if the line is damaged."""
    return _ROW_JSON.validate_json(line)


def write_atomic(path: Path, data: bytes) -> None:
    """Write `data` so that `path` holds either what it held or all of `data`, even after a power cut."""
    temporary = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=path.name, suffix=".tmp", delete=False) as file:
            temporary = file.name
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.chmod(temporary, 0o644)
        os.replace(temporary, path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise RecordError(f"{path} cannot be written: {error.strerror}") from None


def _failure_text(row: Row) -> str | None:
    return "; ".join(f"{failure.stage}: {failure.reason}" for failure in row.failures) or None


def _complaints(error: ValidationError) -> str:
    parts = [f"{'.'.join(map(str, part['loc'])) or 'record'}: {part['msg']}" for part in error.errors()]
    more = f" (and {len(parts) - 3} more)" if len(parts) > 3 else ""
    return "; ".join(parts[:3]) + more
