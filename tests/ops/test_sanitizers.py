"""Kernels and operators under the address and undefined-behaviour sanitizers, built quietly."""

from __future__ import annotations

import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.ops.native_build import (
    COMPILER,
    ROOT,
    SANITIZE,
    Build,
    build_extension,
    check_quiet,
    has_sanitizers,
)

pytestmark = pytest.mark.native

CPU = ROOT / "ddep" / "ops" / "csrc" / "cpu"


@pytest.fixture(scope="module")
def sanitizers(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The compiler's options for sanitizers; skip if it has none."""
    if not shutil.which(COMPILER):
        pytest.skip(f"needs the C++ compiler {COMPILER}")
    if not has_sanitizers(tmp_path_factory.mktemp("sanitizers")):
        pytest.skip(f"{COMPILER} has no address and undefined-behaviour sanitizers here")
    return SANITIZE


@pytest.fixture(scope="module")
def built_extension(sanitizers: list[str], tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The extension module for the CPU, built with sanitizers and more warnings than usual."""
    return build_extension(tmp_path_factory.mktemp("build"), ["-Wall", "-Wextra"], sanitizers)


def test_kernels(sanitizers: list[str], tmp_path: Path):
    """All instruction sets, both types and many sizes; see the driver."""
    command = [COMPILER, "-std=c++17", "-O1", "-g1", *sanitizers, f"-I{CPU}"]
    command += [str(ROOT / "tests" / "ops" / "sanitizers" / "driver.cpp")]
    command += [str(CPU / "kernels_default.cpp"), str(CPU / "kernels_avx2.cpp")]
    result = subprocess.run(
        [*command, "-o", "driver"], cwd=tmp_path, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    result = subprocess.run([str(tmp_path / "driver")], capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    found = dict(line.split(": ") for line in result.stdout.splitlines())
    assert {"default float", "default double"} <= found.keys()
    assert set(found.values()) == {"1020"}
    if " avx2 " in Path("/proc/cpuinfo").read_text() and platform.machine() == "x86_64":
        assert {"AVX2 float", "AVX2 double"} <= found.keys()


# Replaces the package's library by the given one, and runs tests with it.
RUN_TESTS = """
import importlib.util
import sys

import pytest
import torch

spec = importlib.util.spec_from_file_location("ddep._C", sys.argv[1])
sys.modules["ddep._C"] = importlib.util.module_from_spec(spec)
spec.loader.exec_module(sys.modules["ddep._C"])
from ddep.ops import extension

assert extension._LIBRARY.__file__ == sys.argv[1]
sys.exit(pytest.main(sys.argv[2:]))
"""


def test_operators(built_extension: Build):
    """Tests of results and of argument checks, with the whole extension."""
    if sys.platform != "linux":
        pytest.skip("loads the sanitizers' libraries as Linux does")
    libraries = [
        subprocess.run(
            [COMPILER, f"-print-file-name={name}"], capture_output=True, text=True, check=True
        ).stdout.strip()
        for name in ("libasan.so", "libubsan.so")
    ]
    if not all(os.path.isabs(library) for library in libraries):
        pytest.skip(f"{COMPILER} does not have the sanitizers as shared libraries")
    tests = ["test_ms_deform_attn.py", "test_special_values.py", "test_checks.py"]
    tests += ["test_mask_costs.py", "test_mask_losses.py", "test_point_drawing.py"]
    command = [sys.executable, "-c", RUN_TESTS, str(built_extension.library)]
    command += ["-q", "-p", "no:cacheprovider"]
    command += ["-k", "not reference- and not compiles and not opcheck"]
    result = subprocess.run(
        [*command, *(f"tests/ops/{test}" for test in tests)],
        cwd=ROOT,
        env={
            **os.environ,
            "LD_PRELOAD": " ".join(libraries),
            "ASAN_OPTIONS": "detect_leaks=0",  # Python's own
            "CUDA_VISIBLE_DEVICES": "",
            "PYTHONPATH": str(ROOT),
        },
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stdout[-5000:] + result.stderr[-5000:]
    assert " passed" in result.stdout


def test_builds_without_warnings(built_extension: Build):
    """Built as pip does, with warnings that are off by default."""
    assert "-Wextra" in built_extension.compiler_said
    check_quiet(built_extension.compiler_said)
