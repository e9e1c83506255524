from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

# Page faults of 40 rounds in which 60 MB are taken, written and freed.
_COUNT_FAULTS = """
import resource, sys, torch
from ddep.host_memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
for number in range(41):
    blocks = [torch.ones(5_000_000) for _ in range(3)]
    del blocks
    if number == 0:
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="about glibc")
def test_freed_memory_comes_back_without_page_faults() -> None:
    # glibc's defaults, which it would else raise by itself, or not, as its heap happens to lie.
    returning = {"MALLOC_MMAP_THRESHOLD_": "131072", "MALLOC_TRIM_THRESHOLD_": "131072"}
    environment = {**os.environ, **returning}
    counts = {
        how: int(
            subprocess.check_output([sys.executable, "-c", _COUNT_FAULTS, how], env=environment)
        )
        for how in ("keep", "return")
    }
    assert counts["keep"] < counts["return"] / 10
