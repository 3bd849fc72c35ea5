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


@pytest.mark.slow
@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries are left as they are")
def test_memory_is_kept_for_the_next_layer():
    def faults(mode: str) -> int:
        result = subprocess.run([sys.executable, "-c", FAULTS, mode], capture_output=True, text=True, check=True)
        return int(result.stdout)

    pages = 16 * 64_000_000 // 4096
    assert faults("leave") > 0.9 * pages
    assert faults("keep") < 0.5 * pages
