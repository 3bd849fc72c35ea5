"""Exchange records with a results data set on the Hub: take them from it, propose one, publish all.

The data set holds `results/STEM.json` and `results/STEM.parquet`, as the project's own folder of records does.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Literal

from bench.errors import RecordError
from bench.record import MOST_BYTES, Record, read, read_folder, read_values, write_atomic
from bench.report import render
from bench.report.escape import visible
from bench.report.table import tables
from leaderboard.errors import HubError

if TYPE_CHECKING:
    from huggingface_hub import CommitInfo

FOLDER = "results"
MOST_FILES, ALL_BYTES = 20_000, 1_000_000_000  # in a results data set, which may be a stranger's
CARD = """---
pretty_name: Dehazing results
license: apache-2.0
tags: [dehazing, benchmark, leaderboard]
viewer: false
---

# Dehazing results

One JSON record a method, data set and protocol, and the values of each image in a Parquet file beside it, under
`results/`. `python -m leaderboard pull` fetches them, and `python -m leaderboard submit` proposes another.

"""

Change = Literal["new", "newer", "unchanged", "kept", "refused"]


def pull(repo: str, folder: Path, revision: str | None = None) -> dict[str, tuple[Change, str]]:
    """Fetch the records of a results data set into `folder`; say of each file what became of it, and why.

    A record that is older than the folder's own is left where it is, and one that cannot be trusted is refused. Nothing
    is deleted. Raises HubError if the data set cannot be had, or holds more than a results data set does.
    """
    from huggingface_hub import HfApi, RepoFile, snapshot_download

    with _explained(repo, "cannot be fetched."):
        # What is looked at is what is fetched, whatever is committed meanwhile.
        commit = HfApi().dataset_info(repo, revision=revision, expand=["sha"]).sha
        listed = HfApi().list_repo_tree(repo, recursive=True, repo_type="dataset", revision=commit)
        entries = list(islice(listed, MOST_FILES + 1))
    if len(entries) > MOST_FILES:
        raise HubError(f"holds more than {MOST_FILES:,} files, which no results data set does.", subject=repo)
    files = {PurePosixPath(entry.path): entry for entry in entries if isinstance(entry, RepoFile)}
    sizes = {
        path: file.size for path, file in files.items() if str(path.parent) == FOLDER and path.suffix in MOST_BYTES
    }
    refusals = {path: _refusal(path, sizes) for path in sorted(sizes) if path.suffix == ".json"}
    wanted = [str(part) for path, why in refusals.items() if not why for part in _parts(path) if part in sizes]
    if sum(sizes[PurePosixPath(path)] for path in wanted) > ALL_BYTES:
        raise HubError(f"holds records of more than {ALL_BYTES / 1e6:,.0f} MB together.", subject=repo)
    snapshot = ""
    if wanted:
        with _explained(repo, "cannot be fetched."):
            snapshot = snapshot_download(repo, repo_type="dataset", revision=commit, allow_patterns=wanted)
    return {
        path.name: ("refused", why) if why else _take(Path(snapshot, path), folder) for path, why in refusals.items()
    }


def _parts(path: PurePosixPath) -> list[PurePosixPath]:
    """Return both files of a record."""
    return [path.with_suffix(suffix) for suffix in MOST_BYTES]


def _refusal(path: PurePosixPath, sizes: Mapping[PurePosixPath, int]) -> str:
    """Say why a record is not even fetched; nothing if it is."""
    if not re.fullmatch(r"[A-Za-z0-9._+-]{1,255}", path.name):
        return "records have no such names"
    for part in _parts(path):
        if sizes.get(part, 0) > MOST_BYTES[part.suffix]:
            return f"{part.name} has more than {MOST_BYTES[part.suffix] / 1e6:g} MB, which no record needs"
    return ""


def _take(path: Path, folder: Path) -> tuple[Change, str]:
    own = folder / path.name
    try:
        record = read(path)
        read_values(path, record)
        if path.stem != record.stem:
            raise RecordError(f"should have the name {record.stem}.json.", subject=path)
    except RecordError as error:
        return "refused", error.for_visitors()
    before = None
    if own.exists():
        try:
            before = read(own)
            read_values(own, before)
        except RecordError:  # a damaged one is replaced
            before = None
    if before == record:
        return "unchanged", ""
    if before and before.created >= record.created:
        return "kept", f"the one here is of {before.created}, that one of {record.created}"
    # The values come first: a record without them is noticed, and the next pull goes on.
    for suffix in (".parquet", ".json"):
        write_atomic(own.with_suffix(suffix), path.with_suffix(suffix).read_bytes())
    return ("newer" if before else "new"), ""


def files(path: Path, record: Record) -> dict[str, bytes]:
    """Return what a results data set holds of the record at `path`, by its path there."""
    return {
        f"{FOLDER}/{record.stem}{suffix}": path.with_suffix(suffix).read_bytes() for suffix in (".json", ".parquet")
    }


def propose(path: Path, record: Record, repo: str, description: str = "") -> str:
    """Open a pull request that adds a record to the results data set `repo`; return its address.

    Raises HubError if the Hub does not take it, or if the data set holds the very same record.
    """
    title = visible(f"{record.method.name} on {record.dataset.name}, {record.protocol}")
    done = _commit(repo, "dataset", files(path, record), title, description, pull_request=True)
    if done.pr_url is None:
        raise HubError(f"holds this very record of {title}.", "There is nothing to propose.", subject=repo)
    return done.pr_url


def contents(results: Path) -> dict[str, bytes]:
    """Return what a results data set holds of the records in `results`, by path: the records, and a card with tables.

    Raises RecordError if one of them cannot be trusted.
    """
    records, broken = read_folder(results)
    if broken:
        raise broken[0]
    found = {}
    for path, record in records.items():
        read_values(path, record)
        found |= files(path, record)
    card = CARD + render.markdown(tables(records.values())) + "\n"
    return found | {"README.md": card.encode()}


def evaluations(name: str, records: Sequence[Record], repo: str) -> dict[str, bytes]:
    """Return the `.eval_results` of the model `name`, by path: a YAML file a data set and protocol, an entry a metric.

    The model's page on the Hub shows them, with links to the records in the results data set `repo`; a board of all
    models appears there once the Hub lists `repo` as a benchmark. Raises RecordError without a record of the model.
    Source: the Hub's documentation, "Evaluation results".
    """
    import yaml
    from huggingface_hub import EvalResultEntry, constants, eval_result_entries_to_yaml

    found = {}
    for record in records:
        if record.method.name != name:
            continue
        entries = [
            EvalResultEntry(
                dataset_id=repo,
                task_id=f"{record.dataset.name}__{record.protocol}__{metric}",
                value=summary.mean,
                date=record.created,
                source_url=f"{constants.ENDPOINT}/datasets/{repo}/blob/main/{FOLDER}/{record.stem}.json",
                source_name="Result record",
                notes=_note(record, metric),
            )
            for metric, summary in record.metrics.items()
            if summary.mean is not None
        ]
        text = yaml.safe_dump(eval_result_entries_to_yaml(entries), sort_keys=False, allow_unicode=True)
        found[f".eval_results/{record.stem}.yaml"] = text.encode()
    if not found:
        there = ", ".join(sorted({record.method.name for record in records}))
        raise RecordError(f"There is no record of {name}; there are records of {there}.")
    return found


def _note(record: Record, metric: str) -> str:
    summary = record.metrics[metric]
    which = "higher" if summary.direction == "up" else "lower"
    text = f"{which} is better; mean over {summary.count} images of {record.dataset.name} under {record.protocol}"
    if summary.low is not None:
        text += f", 95 % bootstrap interval {summary.low:.4g} to {summary.high:.4g}"
    if record.contaminated:
        text += f"; trained on data that overlaps the set: {', '.join(record.contaminated)}"
    return visible(text)


def publish(repo: str, kind: str, content: Mapping[str, bytes], message: str, pull_request: bool = False) -> str:
    """Commit files to a repository of the Hub, made if it is not there; return the commit's or request's address.

    Raises HubError if the Hub does not take them.
    """
    done = _commit(repo, kind, content, message, "", pull_request)
    return done.pr_url or done.commit_url


def _commit(
    repo: str, kind: str, content: Mapping[str, bytes], message: str, description: str, pull_request: bool
) -> "CommitInfo":
    from huggingface_hub import CommitOperationAdd, HfApi

    steps = [CommitOperationAdd(path, data) for path, data in content.items()]
    with _explained(repo, "did not take the files."):
        api = HfApi()
        if not pull_request:
            api.create_repo(repo, repo_type=kind, exist_ok=True)
        return api.create_commit(
            repo, steps, repo_type=kind, commit_message=message, commit_description=description, create_pr=pull_request
        )


@contextmanager
def _explained(repo: str, failed: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # the client's own kinds, and those of its HTTP library where a transfer breaks off
        why = str(error).strip().partition("\n")[0] or type(error).__name__
        setting = f"Check the name, the connection and the login ('hf auth login'): {why}"
        raise HubError(failed, "Try again later.", subject=repo, setting=setting) from error
