"""Importing does nothing: no file written, no folder made, no socket opened, no heavy library loaded."""

import subprocess
import sys

import pytest

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


@pytest.mark.parametrize(
    "module",
    ["dehaze", "dehaze.cli", "dehaze.hub", "dehaze.networks.api", "dehaze.haze", "bench.cli", "bench.metrics"]
    + ["bench.record", "leaderboard.table"],
)
def test_importing_does_nothing(module):
    heavy = "('transformers', 'pyiqa', 'gradio', 'matplotlib', 'datasets', 'accelerate')"
    code = f"{GUARD}\nimport {module}\nloaded = [name for name in {heavy} if name in sys.modules]\nassert not loaded, loaded"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


def test_the_page_can_be_imported_without_being_launched():
    code = "import app\nimport sys\nassert 'pyiqa' not in sys.modules"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr


@pytest.mark.parametrize(("package", "forbidden"), [("dehaze.cli", "bench"), ("leaderboard.table", "dehaze")])
def test_imports_flow_one_way(package, forbidden):
    code = f"import sys, {package}\nassert not [name for name in sys.modules if name.split('.')[0] == {forbidden!r}]"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
