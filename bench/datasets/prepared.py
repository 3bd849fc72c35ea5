"""A set as `bench prepare` writes it: the original files and a table of which belong together, an imagefolder."""

from pathlib import Path, PurePosixPath

from bench.datasets.files import Sample, make_samples, some
from bench.errors import DatasetError

METADATA = "metadata.parquet"


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
        files = [
            (row["id"], _inside(root, row["hazy_file_name"]), _inside(root, row.get("clear_file_name"))) for row in rows
        ]
        border = max((row["clear_border"] for row in rows), default=0)
    except (OSError, pa.ArrowException, KeyError, TypeError, ValueError) as error:
        raise DatasetError(f"{root / METADATA} is damaged ({error}): run bench prepare again") from None
    if missing := [str(path.relative_to(root)) for _, *pair in files for path in pair if path and not path.is_file()]:
        raise DatasetError(f"{root} lacks {some(missing)}: run bench prepare again")
    samples = make_samples(files, border)
    changed = [
        sample.id
        for sample, row in zip(samples, rows, strict=True)
        if (sample.hazy_sha256, sample.clear_sha256) != (row["hazy_sha256"], row.get("clear_sha256"))
    ]
    if changed:
        raise DatasetError(f"{root} was changed since it was prepared: {some(changed)}. Run bench prepare again.")
    return samples


def _inside(root: Path, name: str | None) -> Path | None:
    if name is None:
        return None
    path = PurePosixPath(name)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError(f"{name} lies outside")
    return root / path
