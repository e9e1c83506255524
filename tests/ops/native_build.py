"""Build the extension as pip does, into a folder of the test."""

from __future__ import annotations

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
COMPILER = os.environ.get("CXX", "g++")
SANITIZE = ["-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


@dataclass(frozen=True)
class Build:
    library: Path
    compiler_said: str


def has_sanitizers(folder: Path) -> bool:
    (folder / "main.cpp").write_text("int main() {}\n")
    command = [COMPILER, *SANITIZE, "main.cpp", "-o", "main"]
    return subprocess.run(command, cwd=folder, capture_output=True).returncode == 0


def build_extension(folder: Path, warnings: list[str], sanitizers: list[str]) -> Build:
    """Build the extension for the CPU without installing it."""
    environment = {
        **os.environ,
        "CFLAGS": " ".join([*warnings, *sanitizers]),
        "LDFLAGS": " ".join(sanitizers),
        "CXX": COMPILER,
        "CUDA_VISIBLE_DEVICES": "",
        "MAX_JOBS": "2",
    }
    for name in ("DDEP_OPS", "FORCE_CUDA"):
        environment.pop(name, None)
    command = [sys.executable, "setup.py", "build_ext"]
    command += [f"--build-lib={folder / 'lib'}", f"--build-temp={folder / 'temp'}"]
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    (library,) = (folder / "lib" / "ddep").glob("_C*")
    return Build(library, result.stdout + result.stderr)
