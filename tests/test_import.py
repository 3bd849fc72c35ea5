"""Importing does nothing: no file written, no folder made, no socket opened, no heavy library loaded."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow  # each test starts another Python
ROOT = Path(__file__).parents[1]

GUARD = """
import sys
sys.dont_write_bytecode = True
def guard(event, arguments):
    if event == "open":
        path, mode, flags = arguments
        writes = any(letter in (mode or "") for letter in "wax+") or (mode is None and flags & 0o3)
        if writes and str(path) != "/dev/null":
            raise RuntimeError(f"importing writes {path}")
    if event in ("os.mkdir", "socket.connect", "socket.bind", "socket.getaddrinfo", "subprocess.Popen"):
        raise RuntimeError(f"importing does {event} {arguments}")
import torch  # its own import is its own matter
sys.addaudithook(guard)
"""


LIGHT = ["dehaze", "dehaze.cli", "dehaze.hub", "dehaze.networks.api", "dehaze.haze"]
LIGHT += ["bench.cli", "bench.metrics", "bench.record", "bench.report.table", "leaderboard.page.board"]
HEAVY = ["transformers", "pyiqa", "gradio", "matplotlib", "datasets", "accelerate"]


def run(code: str) -> None:
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize("module", LIGHT)
def test_importing_does_nothing(module):
    run(f"{GUARD}\nimport {module}\nloaded = set({HEAVY}) & set(sys.modules)\nassert not loaded, loaded")


def test_the_page_can_be_imported_without_being_launched():
    run("import app\nimport sys\nassert 'pyiqa' not in sys.modules")


@pytest.mark.parametrize(
    ("package", "forbidden"),
    [("dehaze.cli", "bench"), ("bench.report.render", "dehaze"), ("bench.cli", "leaderboard")],
)
def test_imports_flow_one_way(package, forbidden):
    run(f"import sys, {package}\nassert not [name for name in sys.modules if name.split('.')[0] == {forbidden!r}]")
