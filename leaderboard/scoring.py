"""Have predictions scored by `python -m bench score`, in a process of its own.

The leaderboard reads records and makes none. A process of its own also keeps the metrics' memory out of the page, and
can be stopped.
"""

import re
import subprocess
import sys
from pathlib import Path

import bench
from bench.record import Method
from leaderboard.errors import SubmissionError

SECONDS = 3600


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
        "predictions": predictions.absolute(),
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
    command = [sys.executable, "-m", "bench", "score", *given]
    try:
        done = subprocess.run(
            command, cwd=Path(bench.__file__).parents[1], capture_output=True, encoding="utf-8", timeout=seconds
        )
    except subprocess.TimeoutExpired:
        raise SubmissionError(
            f"scoring took more than {seconds:g} seconds: run 'python -m bench score', and hand in the record"
        ) from None
    records = list(output.glob("*.json"))
    if not records:
        said = [line for line in done.stderr.splitlines() if line.strip()] or ["it ended without a word"]
        told = next((line for line in said if line.startswith("error: ")), said[-1]).removeprefix("error: ")
        # Without the folders: the archive's, and the one that it was unpacked to, which has its name.
        raise SubmissionError(re.sub(rf"\S*/{re.escape(predictions.name)}", lambda _: predictions.name, told))
    return records[0]
