"""Fixtures of the models' tests."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ops.conftest import force


@pytest.fixture
def reference_operators() -> Iterator[str]:
    """Operators in plain PyTorch, whose waits for the device can be seen."""
    yield from force("reference", "cpu")
