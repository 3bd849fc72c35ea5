"""Data sets on the Hub, by the library `datasets`; images stay undecoded, so that the fingerprint is of their bytes."""

import hashlib
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Any

from bench.datasets.catalogue import mentions
from bench.datasets.files import PLAIN, Files, Layout, Sample, arrange, make_samples
from bench.errors import DatasetError
from bench.record import write_atomic

_HAZY, _CLEAR = ("hazy", "haze"), ("clear", "gt")  # columns, and features of them as *_file_name
_TEST = "test"


def load(
    repo: str,
    *,
    revision: str | None = None,
    config: str | None = None,
    split: str | None = None,
    layout: Layout = PLAIN,
    part: str = "",
    limit: int | None = None,
) -> tuple[tuple[Sample, ...], tuple[str, ...]]:
    """Load the samples of a data set and what there is to note.

    It has image columns `hazy` and, for pairs, `clear` (`*_file_name` in its metadata, or in Parquet), or one image
    column whose files lie in folders as a local set's do. `split` may be left out where there is one, or one is called
    test; `part` chooses the files that have this name in their paths. With `limit`, and where another split would be
    fetched as well, the data set is streamed; else it is kept in the library's cache.
    Raises DatasetError that says what is wrong and what to do.
    """
    try:
        from datasets import load_dataset, load_dataset_builder
        from huggingface_hub import HfApi
    except ImportError:
        raise DatasetError(
            "Data sets on the Hub need the library datasets.", setting="Install it: pip install datasets"
        ) from None
    try:
        commit = HfApi().dataset_info(repo, revision=revision).sha
        splits = [str(name) for name in load_dataset_builder(repo, config, revision=commit).config.data_files or ()]
        split = split or (splits[0] if len(splits) == 1 else _TEST)
        if split not in splits:
            raise DatasetError(
                f"has the splits {', '.join(splits)}.", f"Name one as hub:{repo}:CONFIG/SPLIT.", subject=repo
            )
        streaming = limit is not None or len(splits) > 1
        rows = load_dataset(repo, config, split=split, revision=commit, streaming=streaming)
        return tuple(_samples(repo, _undecoded(rows), layout, part, limit)), (f"{repo} at commit {commit}",)
    except DatasetError:
        raise
    except Exception as error:  # the libraries raise a dozen kinds, down to those of their HTTP client
        raise _explained(repo, revision, error) from error


def _undecoded(rows: Any) -> Any:
    from datasets import Image, IterableDataset

    if isinstance(rows, IterableDataset):
        return rows.decode(False)
    for column, feature in rows.features.items():
        if isinstance(feature, Image):
            rows = rows.cast_column(column, Image(decode=False))
    return rows


def _samples(repo: str, rows: Any, layout: Layout, part: str, limit: int | None) -> list[Sample]:
    from datasets import Image

    images = [column for column, feature in rows.features.items() if isinstance(feature, Image)]
    hazy = next((column for column in images if column.lower() in _HAZY), None)
    clear = next((column for column in images if column.lower() in _CLEAR), None)
    if hazy is not None:
        files = _from_columns(repo, rows, hazy, clear, layout, limit)
    elif len(images) == 1:
        files = _from_paths(repo, rows, images[0], layout, part, limit)
    else:
        raise DatasetError(
            f"has the columns {', '.join(rows.features)}.", "It needs hazy, and clear for pairs.", subject=repo
        )
    samples = make_samples(files)
    if not samples:
        raise DatasetError("holds no image.", subject=repo)
    return sorted(samples, key=lambda sample: sample.id)


def _from_columns(
    repo: str, rows: Any, hazy: str, clear: str | None, layout: Layout, limit: int | None
) -> Iterator[Files]:
    seen = set()
    for number, row in enumerate(rows):
        if number == limit:
            return
        if row[hazy] is None:
            raise DatasetError(f"has no hazy image in row {number}.", subject=repo)
        id_ = row.get("id") or PurePosixPath(row[hazy]["path"] or f"{number:06d}").stem
        if id_ in seen:
            raise DatasetError(f"has two rows that are called {id_}.", "Give them a column id.", subject=repo)
        seen.add(id_)
        partner = _local(repo, row[clear]) if clear and row[clear] else None
        yield str(id_), _local(repo, row[hazy]), partner, row.get("clear_border", layout.border)


def _from_paths(repo: str, rows: Any, column: str, layout: Layout, part: str, limit: int | None) -> Iterator[Files]:
    cells = {PurePosixPath(row[column]["path"]): row[column] for row in rows}
    if part:
        cells = {path: cell for path, cell in cells.items() if mentions(_in_repository(path), part)}
    if not cells:
        raise DatasetError(f"has no file with {part} in its path.", "Get the set from its source.", subject=repo)
    shared = PurePosixPath(*_common([path.parent.parts for path in cells]))
    inside = {path.relative_to(shared): cell for path, cell in cells.items()}
    for number, (hazy, (id_, clear)) in enumerate(arrange(inside, layout, repo).items()):
        if number == limit:
            return
        yield id_, _local(repo, inside[hazy]), clear and _local(repo, inside[clear]), layout.border


def _in_repository(path: PurePosixPath) -> str:
    """Drop what comes before a repository's own folders: its name may well hold that of a set."""
    text = path.as_posix()
    for mark in ("/snapshots/", "@"):  # in the cache, and in an address hf:/…@commit/…
        if mark in text:
            return text.partition(mark)[2].partition("/")[2]
    return text


def _common(parts: list[tuple[str, ...]]) -> list[str]:
    shared = []
    for names in zip(*parts, strict=False):
        if len(set(names)) > 1 or names[0].lower() in _HAZY + _CLEAR:
            break
        shared.append(names[0])
    return shared


def _local(repo: str, cell: dict[str, Any]) -> Path:
    """Return the file of an image: where the library keeps it, or in the Hub's cache under the hash of its bytes."""
    from datasets import config
    from datasets.utils.file_utils import xopen
    from huggingface_hub import cached_assets_path, constants

    name, data = cell["path"] or "", cell["bytes"]
    if data is None:
        remote = name.rpartition("::")[2].startswith("hf://datasets/")  # zip://IMAGE::hf://… inside an archive
        caches = (constants.HF_HUB_CACHE, config.HF_DATASETS_CACHE)
        kept = ".." not in Path(name).parts and any(Path(name).is_relative_to(cache) for cache in caches)
        if not remote and not kept:  # Parquet may name any file, this machine's own among them
            raise DatasetError(f"names {name}, which is no file of its own.", subject=repo)
        if kept:
            return Path(name)
        with xopen(name, "rb") as file:
            data = file.read()
    folder = cached_assets_path("dehaze", "bench", "images")
    path = folder / f"{hashlib.sha256(data).hexdigest()}{PurePosixPath(name).suffix}"
    if not path.is_file() or path.stat().st_size != len(data):
        write_atomic(path, data)
    return path


def _explained(repo: str, revision: str | None, error: Exception) -> DatasetError:
    """Say what an error of the libraries means."""
    from datasets.exceptions import DatasetNotFoundError
    from huggingface_hub.errors import GatedRepoError, RepositoryNotFoundError, RevisionNotFoundError

    chain: list[BaseException] = [error]
    while (cause := chain[-1].__cause__ or chain[-1].__context__) is not None and cause not in chain:
        chain.append(cause)
    kinds = tuple(type(one) for one in chain)
    if any(issubclass(kind, GatedRepoError) for kind in kinds):
        advice = "Ask on its page, then log in with 'hf auth login'."
        return DatasetError("is open only to those its owner admits.", advice, subject=repo)
    if any(issubclass(kind, RevisionNotFoundError) for kind in kinds):
        return DatasetError(f"has no revision {revision!r} on the Hub.", "Check what follows the @.", subject=repo)
    if any(issubclass(kind, RepositoryNotFoundError | DatasetNotFoundError) for kind in kinds):
        advice = "Check the name, or log in with 'hf auth login'."
        return DatasetError("is no data set on the Hub that you can read.", advice, subject=repo)
    answers = (getattr(one, "response", None) for one in chain)
    status = next((answer.status_code for answer in answers if answer is not None), None)
    if status == 429:
        advice = "Wait some minutes, or log in with 'hf auth login'."
        return DatasetError("cannot be had for now: the Hub refuses more requests (429).", advice, subject=repo)
    reason = f"HTTP status {status}" if status else f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
    advice = "Try again, or give the set as folder:PATH."
    return DatasetError(f"cannot be had from the Hub ({reason}).", advice, subject=repo)
