"""Prepare a data set: check a downloaded folder against the catalogue, and write what `datasets` reads and takes."""

import shutil
from pathlib import Path

from bench.datasets import Dataset, catalogue, prepared, read_entry
from bench.datasets.catalogue import Entry
from bench.errors import DatasetError

_CARD = """---
license: other
license_name: see-source
task_categories: [image-to-image]
tags: [dehazing, {name}]
configs:
- config_name: default
  data_files:
  - split: test
    path: [{metadata}, "hazy/**", "clear/**"]
---

# {name}

{about}

| | |
| --- | --- |
| source | {address} |
| licence | {license} |
| images | {samples}, of which {pairs} with a clear image |
| split | {split} |
| fingerprint | `{fingerprint}` |

A copy of the original files, byte for byte, with a table of which belong together (`{metadata}`). It is not the
authors' release: whether it may be passed on is for the source's licence to say.
"""


def prepare(name: str, source: Path, output: Path) -> Dataset:
    """Check the folder `source` against the catalogue's data set `name` and copy it to `output` as an imagefolder.

    The copy holds the original files in `hazy/` and `clear/`, `metadata.parquet` with the columns `id`,
    `hazy_file_name`, `clear_file_name` and the hashes, and a card. It has the fingerprint of the source, can be pushed
    to the Hub, and is read as any folder. Raises DatasetError if the source is not the set, or `output` is in use.
    """
    entry = catalogue.get(name)
    if output.exists() and any(output.iterdir() if output.is_dir() else [output]):
        raise DatasetError("is not empty.", "Give another --output, or remove it.", subject=output)
    dataset = read_entry(entry, source.expanduser().resolve())
    unfinished = output.with_name(f"{output.name}.tmp")
    try:
        shutil.rmtree(unfinished, ignore_errors=True)
        files = {}
        for sample in dataset.samples:
            for kind, path in (("hazy", sample.hazy), ("clear", sample.clear)):
                if path is not None and path not in files:
                    # Of several folders with the same names, the id tells the hazy ones apart.
                    stem = sample.id if kind == "hazy" else path.stem
                    files[path] = f"{kind}/{stem}{path.suffix.lower()}"
                    target = unfinished / files[path]
                    target.parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(path, target)
        prepared.write_table(unfinished, list(dataset.samples), files)
        (unfinished / "README.md").write_text(_card(entry, dataset), encoding="utf-8")
        copy = read_entry(entry, unfinished)
        if copy.fingerprint != dataset.fingerprint:
            raise DatasetError("changed while it was copied.", "Run the same command again.", subject=source)
        if output.is_dir():
            output.rmdir()
        unfinished.rename(output)
    except OSError as error:
        raise DatasetError(f"cannot be written: {error.strerror}.", subject=output) from None
    return dataset


def _card(entry: Entry, dataset: Dataset) -> str:
    return _CARD.format(
        name=entry.name,
        about=entry.about,
        address=entry.address,
        license=entry.license,
        samples=len(dataset.samples),
        pairs=dataset.pairs,
        split=entry.split,
        fingerprint=dataset.fingerprint,
        metadata=prepared.METADATA,
    )
