"""A set as `bench prepare` writes it: the original files and a table of which belong together, an imagefolder."""

from pathlib import Path, PurePosixPath
from typing import Any

from bench.datasets.files import Files, Sample, make_samples, some
from bench.errors import DatasetError

METADATA = "metadata.parquet"
_AGAIN = "Run 'python -m bench prepare' again."


def lies_in(root: Path) -> bool:
    """Tell whether `root` holds a prepared set."""
    return (root / METADATA).is_file()


def write_table(root: Path, samples: list[Sample], files: dict[Path, str]) -> None:
    """Write the table of `samples`, whose files lie at `files` inside `root`.

    Parquet and not CSV, which would make the number 51 of the name 51.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    columns = {
        "id": [sample.id for sample in samples],
        "hazy_file_name": [files[sample.hazy] for sample in samples],
        "hazy_sha256": [sample.hazy_sha256 for sample in samples],
    }
    if any(sample.clear for sample in samples):
        columns |= {
            "clear_file_name": [sample.clear and files[sample.clear] for sample in samples],
            "clear_sha256": [sample.clear_sha256 for sample in samples],
        }
    table = {name: pa.array(values, pa.string()) for name, values in columns.items()}
    table["clear_border"] = pa.array([sample.border for sample in samples], pa.int64())
    pq.write_table(pa.table(table), root / METADATA)


def read(root: Path) -> list[Sample]:
    """Read a prepared set. Raises DatasetError if its table is damaged or a file is missing or changed."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        rows = pq.read_table(root / METADATA).to_pylist()
        files = [_files(root, row) for row in rows]
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        why = f"no column {error}" if isinstance(error, KeyError) else " ".join(str(error).split())
        raise DatasetError(f"cannot be used ({why}).", _AGAIN, subject=root / METADATA) from None
    paths = [path for _, *pair, _ in files for path in pair if path]
    if missing := [path.relative_to(root).as_posix() for path in paths if not path.is_file()]:
        raise DatasetError(f"lacks {some(missing)}.", _AGAIN, subject=root)
    samples = make_samples(files)
    changed = [
        sample.id
        for sample, row in zip(samples, rows, strict=True)
        if (sample.hazy_sha256, sample.clear_sha256) != (row["hazy_sha256"], row.get("clear_sha256"))
    ]
    if changed:
        raise DatasetError(f"was changed since it was prepared: {some(changed)}.", _AGAIN, subject=root)
    return samples


def _files(root: Path, row: dict[str, Any]) -> Files:
    hazy, clear = _inside(root, row["hazy_file_name"]), row.get("clear_file_name")
    return row["id"], hazy, None if clear is None else _inside(root, clear), row["clear_border"]


def _inside(root: Path, name: str) -> Path:
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{name} lies outside")
    return root / path
