"""Build the extension as pip does, or the CUDA kernels for a CPU, into a folder of the test."""

from __future__ import annotations

import ctypes
import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest
from torch.utils import cpp_extension

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


def build_emulation(folder: Path, driver: str, architecture: int = 900) -> ctypes.CDLL:
    """Compile CUDA kernels and a driver of the folder cuda_emulation to run on a CPU.

    ``architecture``: whose atomic operations the kernels use (800 is sm_80).
    """
    compiler = shutil.which("g++")
    if compiler is None:
        pytest.skip("g++ is not installed")
    library = folder / "kernels.so"
    command = [compiler, "-std=c++17", "-O1", "-Wall", "-Wextra", "-Wno-unknown-pragmas", "-Werror"]
    command += ["-shared", "-fPIC", f"-DDDEP_EMULATED_ARCH={architecture}"]
    # A vector load at a misaligned address ends the process with a message.
    command += ["-fsanitize=alignment,bounds,float-cast-overflow", "-fno-sanitize-recover=all"]
    for include in cpp_extension.include_paths():
        command += ["-isystem", include]
    source = Path(__file__).parent / "cuda_emulation" / driver
    subprocess.run([*command, str(source), "-o", str(library)], check=True)
    return ctypes.CDLL(str(library))


def check_quiet(compiler_said: str) -> None:
    """PyTorch's headers may cause warnings, our files must not."""
    ours = re.findall(
        rf"^(?:{ROOT}/ddep/ops/csrc|ddep/ops/csrc)/.*warning:.*", compiler_said, re.MULTILINE
    )
    assert not ours, "\n".join(ours)
