"""Have predictions scored by `python -m bench score`, in a process of its own.

The leaderboard reads records and makes none. A process of its own also keeps the metrics' memory out of the page, and
can be stopped.
"""

import errno
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import bench
from bench.record import Method, complaints
from leaderboard.errors import SubmissionError

SECONDS = 3600
_ROOT = Path(bench.__file__).parents[1]
_LONGEST = 1000  # letters of what the harness says that are told


def describe(**about: Any) -> Method:
    """Return what is said of a method. Raises SubmissionError that names what is wrong with it."""
    try:
        return Method(**about)
    except ValidationError as error:
        raise SubmissionError(f"The method cannot be described like this: {complaints(error)}.") from None


def score(
    predictions: Path,
    dataset: str,
    protocol: str,
    method: Method,
    output: Path,
    data_root: Path | None = None,
    seconds: float = SECONDS,
) -> Path:
    """Score a folder or zip archive of restored images by the harness's default metrics; return the record's path.

    `dataset` is what the harness takes; sets of the catalogue are looked for in `data_root`. Raises SubmissionError, in
    the harness's own words, if there is no record then, and after `seconds`.
    """
    options = {
        "dataset": dataset,
        "protocol": protocol,
        "output": output.absolute(),
        "method": method.name,
        "license": method.license,
        "paper": method.paper,
        "parameters": method.parameters,
        "data-root": data_root and data_root.absolute(),
    }
    # With "=", a method may be called --help.
    given = [f"--{name}={value}" for name, value in options.items() if value is not None]
    given += [f"--trained-on={name}" for name in method.trained_on]
    command = [sys.executable, "-m", "bench", "score", *given, "--", str(predictions.absolute())]
    try:
        done = subprocess.run(
            command, cwd=_ROOT, capture_output=True, encoding="utf-8", errors="replace", timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise SubmissionError(
            f"Scoring took more than {seconds:g} seconds.", "Run 'python -m bench score', and hand in the record."
        ) from None
    records = list(output.glob("*.json"))
    if not records:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it ended without a word"]
        told = next((line for line in said if line.startswith("error: ")), said[-1]).removeprefix("error: ")
        # The archive is also the folder that it was unpacked to, which has its name.
        told = re.sub(rf"\S*/{re.escape(predictions.name)}", lambda _: predictions.name, told)
        folders = [output, data_root, _ROOT, Path(tempfile.gettempdir())]
        full = any(words in told for words in ("the disk is full", os.strerror(errno.ENOSPC)))
        cause = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) if full else None
        shown = _without(folders, told)[:_LONGEST]
        whole = told[:_LONGEST] if told != shown else ""
        raise SubmissionError(shown, setting=whole and f"In full: {whole}") from cause
    return records[0]


def _without(folders: Sequence[Path | None], text: str) -> str:
    """Return a message of another process, which has no fields, without folders: these, and what looks like one."""
    for folder in filter(None, folders):
        for known in (folder.absolute(), folder.resolve()):
            text = text.replace(str(known), "…")
    return re.sub(r"(?<![\w/…])/(?:[^\s/]+/)+", "…/", text)
