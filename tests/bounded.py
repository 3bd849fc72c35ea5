"""Calls that must fail well, in a process of its own whose memory is bounded.

    outcomes = run("dehaze.hub:load_network", {"empty": ["api", "some/folder"]})
    outcomes["empty"]  # Outcome(error="WeightsError", message="…", seconds=0.01, megabytes=0.2)

Arguments are texts, as they go to that process by JSON. A call that ends the process, or waits beyond the time limit,
has no outcome, and neither have those after it. The first call brings the imports, and its memory is not bounded.
"""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
STATUS = Path("/proc/self/status")


@dataclass(frozen=True)
class Outcome:
    """What a call raised, None if nothing, its processor time, and how much more memory it held at its peak."""

    error: str | None
    message: str
    seconds: float
    megabytes: float


def run(
    target: str, calls: dict[str, list[str]], *, timeout: float = 60, env: dict[str, str] | None = None
) -> dict[str, Outcome]:
    """Call `target`, "module:function", with each list of arguments; each call may take 1 GB of memory."""
    command = [sys.executable, "-c", f"from tests import bounded; bounded.answer({target!r})"]
    process = subprocess.Popen(
        command, cwd=ROOT, env=env, text=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    )
    try:
        output, errors = process.communicate(json.dumps(calls), timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        output, errors = process.communicate()
    answers = [json.loads(line) for line in output.splitlines()]
    assert answers, errors
    return {name: Outcome(**outcome) for name, outcome in answers}


def answer(target: str) -> None:
    """Read calls from stdin, and write their outcomes to stdout, line by line."""
    import resource
    import time
    from importlib import import_module

    module, _, name = target.partition(":")
    function = getattr(import_module(module), name)
    for number, (case, arguments) in enumerate(json.load(sys.stdin).items()):
        if number == 1:
            limit = int(_megabytes("VmData") * 2**20) + 10**9
            resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        Path("/proc/self/clear_refs").write_text("5")  # the peak starts anew
        before, start, error = _megabytes("VmRSS"), time.process_time(), None
        try:
            function(*arguments)
        except BaseException as raised:
            error = raised
        outcome = {
            "error": error and type(error).__name__,
            "message": str(error or ""),
            "seconds": time.process_time() - start,
            "megabytes": _megabytes("VmHWM") - before,
        }
        print(json.dumps([case, outcome]), flush=True)


def _megabytes(kind: str) -> float:
    return int(STATUS.read_text().partition(f"{kind}:")[2].split()[0]) / 1024
