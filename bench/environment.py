"""What a run was made with: versions, processor, and the project's own code."""

import hashlib
import os
import platform
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import torch

import dehaze

# Facts that decide how fast a run is and not what comes out.
HOW_FAST = ("cpu", "threads")

_PACKAGES = ("torch", "numpy", "pillow", "pyiqa")


def describe(device: str) -> dict[str, str]:
    """Return versions, processor, thread count, kind of device, and a hash of the code that restores and scores.

    `device` is a torch device name ("cpu", "cuda:0"); which of several equal ones it is does not matter.
    """
    facts = {"dehaze": dehaze.__version__, "python": platform.python_version()}
    facts |= {"platform": f"{platform.system()} {platform.machine()}"}
    facts |= {package: found for package in _PACKAGES if (found := _version(package))}
    facts |= {"cpu": _cpu(), "threads": str(torch.get_num_threads())}
    facts |= {"device": device.partition(":")[0], "code": code()}
    if device.startswith("cuda"):
        facts["accelerator"] = torch.cuda.get_device_name(device)
    return facts


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # pyiqa is optional
        return None


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        lines = []
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return f"{next(names, platform.processor() or platform.machine())}, {os.cpu_count()} cores"


# Folders and modules that change no number; the hash of the weights and of their configuration is taken apart.
_APART = {"training", "page", "report", "sample", "weights", "cli", "terminal", "__main__"}
_SUFFIXES = {".py", ".json", ".toml"}  # code, and the tables that it computes with
_ROOT = Path(__file__).resolve().parent.parent


@cache  # the code that runs is what was read first
def code(root: Path = _ROOT) -> str:
    """Return the version of the code that changes numbers: a hash of what restores and scores, 16 hexadecimal digits.

    It covers both packages under `root` but what trains, shows or reports.
    """
    digest = hashlib.sha256()
    for path in sorted(path for package in ("dehaze", "bench") for path in (root / package).rglob("*")):
        place = path.relative_to(root)
        if path.suffix in _SUFFIXES and not _APART & {*place.parts, place.stem}:
            digest.update(f"{place.as_posix()}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]
