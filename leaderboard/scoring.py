"""Have predictions scored by `python -m bench score`, in a process of its own.

The leaderboard reads records and makes none. A process of its own also keeps the metrics' memory out of the page, and
can be stopped.
"""

import subprocess
import sys
from pathlib import Path
from typing import Any

from pydantic import ValidationError

import bench
from bench.record import Method, complaints
from leaderboard.errors import SubmissionError

SECONDS = 3600
_ROOT = Path(bench.__file__).parents[1]
_LONGEST = 1000  # characters of what a process that fell over said


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

    `dataset` is what the harness takes; sets of the catalogue are looked for in `data_root`. Raises SubmissionError
    with the fields of the harness's own error if there is no record then, and after `seconds`.
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
    command = [sys.executable, "-m", "bench", "score", "--json-errors", *given, "--", str(predictions.absolute())]
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
        try:
            raise SubmissionError.from_json(done.stdout)
        except ValueError:  # it was killed, or fell over a mistake of its own
            said = done.stderr.strip()[-_LONGEST:]
            raise SubmissionError(
                "Scoring ended without a result.", "Try again later.", setting=said and f"It said: {said}"
            ) from None
    return records[0]
