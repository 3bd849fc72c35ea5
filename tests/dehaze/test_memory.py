import platform
import subprocess
import sys

import pytest

# Page faults of filling 64 MB sixteen times, each time freed.
FAULTS = """
import resource, sys, torch
import dehaze
if sys.argv[1] == "keep":
    assert dehaze.memory.keep_freed_memory()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(16):
    torch.zeros(16_000_000).add_(1)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""

# Megabytes of memory held before and after what was freed is given back; a small block above keeps it in the heap.
HELD = """
import re, torch
import dehaze
from pathlib import Path
def held():
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) / 1e3
assert dehaze.memory.keep_freed_memory()
freed, above = torch.ones(16_000_000), torch.ones(10_000)
del freed
before = held()
assert dehaze.memory.release_freed_memory()
print(before - held())
"""
glibc = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")


@pytest.mark.slow
@glibc
def test_freed_memory_is_given_back():
    result = subprocess.run([sys.executable, "-c", HELD], capture_output=True, text=True, check=True)
    assert float(result.stdout) > 50


@pytest.mark.slow
@glibc
def test_memory_is_kept_for_the_next_layer():
    def faults(mode: str) -> int:
        result = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True)
        return int(result.stdout)

    pages = 16 * 64_000_000 // 4096
    assert faults("leave") > 0.9 * pages
    assert faults("keep") < 0.5 * pages
