"""Fixtures that choose implementation and device, and that build the extension with sanitizers."""

from __future__ import annotations

import shutil
from collections.abc import Iterator

import pytest
import torch

from ddep.errors import UserError
from ddep.ops import extension
from tests.ops.native_build import COMPILER

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def force(implementation: str, device: str) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDEP_OPS", implementation)
        extension._decide.cache_clear()
        try:
            extension.use_compiled(device)
        except UserError as error:
            # If they can be compiled here, their absence is an error.
            (pytest.fail if shutil.which(COMPILER) else pytest.skip)(str(error))
        yield implementation
    extension._decide.cache_clear()


@pytest.fixture(scope="module", params=DEVICES)
def device(request: pytest.FixtureRequest) -> str:
    """Every available device."""
    return request.param


@pytest.fixture(scope="module", params=["reference", "compiled"])
def implementation(request: pytest.FixtureRequest, device: str) -> Iterator[str]:
    """Let each implementation run in turn; skip if it is unavailable."""
    yield from force(request.param, device)


@pytest.fixture(scope="module")
def compiled(device: str) -> Iterator[str]:
    """Let the compiled operators run; skip if they are unavailable."""
    yield from force("compiled", device)


@pytest.fixture(scope="module")
def compiled_on_cpu() -> Iterator[str]:
    """The same, for tests of the CPU only."""
    yield from force("compiled", "cpu")
