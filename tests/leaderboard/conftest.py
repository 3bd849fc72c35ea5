import io
import zipfile
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from bench import datasets, metrics, protocol
from bench.record import Method, Record, Row, Summary, write_rows


@pytest.fixture(scope="session")
def sample():
    return datasets.load("sample")


@pytest.fixture
def enter(sample):
    """Write a record of made-up values on the sample set, with summaries that follow from them; return its path.

    `values` maps a metric to a function of the image's index; `record` and `rows` may be changed before they are
    written, as somebody might who wants to deceive, or does not know better.
    """

    def write(folder, method="mine", values=None, *, record=lambda it: it, rows=lambda it: it, **about):
        values = values or {"psnr": lambda i: 13.5 + 0.35 * i, "niqe": lambda i: 3.75 + 0.25 * (i % 5)}
        made = [
            Row(
                id=one.id,
                width=640,
                height=480,
                seconds=0.5,
                values={
                    name: float(value(i))
                    for name, value in values.items()
                    if one.clear or not metrics.spec(name).reference
                },
            )
            for i, one in enumerate(sample.samples)
        ]
        made = rows(made)
        summaries = {}
        for name in values:
            spec = metrics.spec(name)
            column = np.array([row.values[name] for row in made if name in row.values])
            mean, low, high, count = protocol.get("native-v1").aggregate(name, column)
            summaries[name] = Summary(
                mean=mean, low=low, high=high, count=count, infinite=len(column) - count,
                direction=spec.direction, unit=spec.unit, reference=spec.reference,
            )  # fmt: skip
        found = record(
            Record(
                method=Method(name=method, **{"source": "predictions", "parameters": 1000, **about}),
                dataset=sample.info,
                protocol="native-v1",
                metrics=summaries,
                key=f"key of {method}",
                created="2025-03-01T12:00:00Z",
            )
        )
        path = found.write(folder)
        write_rows(path.with_suffix(".parquet"), made, list(values), found.key)
        return path

    return write


@pytest.fixture
def results(tmp_path, enter):
    """A board with two methods on the sample set."""
    folder = tmp_path / "results"
    enter(folder, "identity", {"psnr": lambda i: 12 + 0.5 * i, "niqe": lambda i: 4 + 0.25 * (i % 5)}, parameters=0)
    enter(folder, "dcp", {"psnr": lambda i: 14 + 0.25 * i, "niqe": lambda i: 3.5 + 0.5 * (i % 3)}, parameters=0)
    return folder


def png(seed, low=0):
    """A picture with structure, large enough for every default metric."""
    small = np.random.default_rng(seed).integers(low, 256, (26, 26, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(small).resize((208, 208), Image.Resampling.BICUBIC).save(file, "PNG")
    return file.getvalue()


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """A set of two small pairs."""
    folder = tmp_path_factory.mktemp("data") / "set"
    for kind, low in (("hazy", 128), ("clear", 0)):
        (folder / kind).mkdir(parents=True)
        for name in "ab":
            (folder / kind / f"{name}.png").write_bytes(png(ord(name), low))
    return f"folder:{folder}"


@pytest.fixture(scope="session")
def pack():
    """Write an archive of predictions for the set, of another method for each `low`."""

    def write(path, low, names="ab"):
        with zipfile.ZipFile(path, "w") as archive:
            for name in names:
                archive.writestr(f"restored/{name}.png", png(ord(name), low))
        return path

    return write


@pytest.fixture
def changed():
    """Change fields of a record or of one of its parts."""

    def change(**fields):
        def apply(record):
            for name, value in fields.items():
                part, _, field = name.partition("__")
                new = replace(getattr(record, part), **{field: value}) if field else value
                record = replace(record, **{part: new})
            return record

        return apply

    return change
