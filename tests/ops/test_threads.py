"""The compiled operators on the CPU: equal bits with any number of threads, which is respected."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator

import pytest
import torch

from tests.ops.formula import DTYPES, apply, random_gradient, random_inputs, run

pytestmark = pytest.mark.usefixtures("compiled_on_cpu")

FUSED = pytest.mark.parametrize("fused", [False, True], ids=["plain", "fused"])


@pytest.fixture
def any_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@FUSED
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("channels", [32, 71])
def test_bits_do_not_depend_on_threads(any_threads, fused, dtype, channels):
    """Large enough for all three threads to get rows and columns of each image."""
    inputs = random_inputs(
        [(8, 13), (4, 7)], fused, 2, queries=150, heads=4, channels=channels, points=4, dtype=dtype
    )
    gradient = random_gradient(inputs)
    torch.set_num_threads(1)
    expected = run(apply, inputs, gradient)
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        for one, other in zip(run(apply, inputs, gradient), expected, strict=True):
            assert torch.equal(one, other)


COUNT_THREADS = """
import os
import re

import torch
from tests.ops.formula import apply, random_gradient, random_inputs, run

os.environ["DDEP_OPS"] = "compiled"
inputs = random_inputs([(8, 13)], True, queries=400, heads=8, channels=32, dtype=torch.float32)
gradient = random_gradient(inputs)
torch.set_num_threads(1)
run(apply, inputs, gradient)  # starts autograd's own threads
before = len(os.listdir("/proc/self/task"))
for threads in (1, 3):
    torch.set_num_threads(threads)
    for _ in range(2):
        run(apply, inputs, gradient)
    print(len(os.listdir("/proc/self/task")) - before)
with open("/proc/self/maps") as maps:
    libraries = set(re.findall(r"\\S+/lib(?:gomp|omp|iomp5)\\b.*", maps.read()))
print(*sorted(libraries))
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's /proc")
@pytest.mark.slow
def test_the_number_of_threads_is_pytorchs():
    """All come from one OpenMP library: a second would have its own number of threads."""
    # Started with one thread, so that all others are counted.
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-c", COUNT_THREADS]
    result = subprocess.run(command, capture_output=True, text=True, env=environment)
    assert result.returncode == 0, result.stderr
    with_one, with_three, libraries = result.stdout.splitlines()
    assert (with_one, with_three) == ("0", "2")
    assert len(libraries.split()) == 1, libraries
