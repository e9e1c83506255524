"""Which implementation runs, and where."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from ddep.errors import UserError
from ddep.ops import extension

DEVICES = ["cpu", "cuda"] if torch.cuda.is_available() else ["cpu"]


def force(implementation: str, device: str) -> Iterator[str]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("DDEP_OPS", implementation)
        extension._decide.cache_clear()
        try:
            extension.use_compiled(device)
        except UserError as error:
            pytest.skip(str(error))
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
