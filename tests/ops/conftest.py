"""Which implementation runs, and where; and the extension, built anew with sanitizers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch

from ddep.errors import UserError
from ddep.ops import extension
from tests.ops.native_build import COMPILER, SANITIZE, Build, build_extension, has_sanitizers

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def force(implementation: str, device: str) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDEP_OPS", implementation)
        extension._decide.cache_clear()
        try:
            extension.use_compiled(device)
        except UserError as error:
            # Where they can be compiled, their absence is a fault.
            (pytest.fail if shutil.which(COMPILER) else pytest.skip)(str(error))
        yield implementation
    extension._decide.cache_clear()


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Every device there is."""
    return request.param


@pytest.fixture(scope="module", params=["reference", "compiled"])
def implementation(request: pytest.FixtureRequest, device: str) -> Iterator[str]:
    """Have either implementation run; skip where it is not there."""
    yield from force(request.param, device)


@pytest.fixture(scope="module")
def compiled(device: str) -> Iterator[str]:
    """Have the compiled operators run; skip where they are not there."""
    yield from force("compiled", device)


@pytest.fixture(scope="module")
def compiled_on_cpu() -> Iterator[str]:
    """The same, for tests that are about the CPU."""
    yield from force("compiled", "cpu")


@pytest.fixture(scope="session")
def sanitizers(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """The compiler's options for them; skip where it has none."""
    if not shutil.which(COMPILER):
        pytest.skip(f"needs the C++ compiler {COMPILER}")
    if not has_sanitizers(tmp_path_factory.mktemp("sanitizers")):
        pytest.skip(f"{COMPILER} has no address and undefined-behaviour sanitizers here")
    return SANITIZE


@pytest.fixture(scope="session")
def built_extension(sanitizers: list[str], tmp_path_factory: pytest.TempPathFactory) -> Build:
    """The extension module for the CPU, with sanitizers and with more warnings than usual."""
    return build_extension(tmp_path_factory.mktemp("build"), ["-Wall", "-Wextra"], sanitizers)
