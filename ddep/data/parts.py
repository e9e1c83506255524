"""Cut a batch into the parts of an accumulated step."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


def cut(batch: Sequence[T], parts: int) -> list[list[T]]:
    """``batch`` in ``parts`` lists of equal length, in its order; ``parts`` divides its length."""
    size = len(batch) // parts
    return [list(batch[i : i + size]) for i in range(0, len(batch), size)]
