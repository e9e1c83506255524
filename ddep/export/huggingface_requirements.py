"""Check that Hugging Face's classes can express the model of a config."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode

from ddep.config import get_key
from ddep.errors import UserError


def value(cfg: CfgNode, key: str) -> Any:
    """The value of ``key`` ("MODEL.SWIN.DEPTHS"), tuples as lists."""
    found = get_key(cfg, key)
    return list(found) if isinstance(found, tuple) else found


def require(cfg: CfgNode, expected: Mapping[str, Sequence[Any]]) -> None:
    """Check that each key has one of the values listed for it.

    Raises:
        UserError: a key has another value.
    """
    for key, choices in expected.items():
        found = value(cfg, key)
        if found not in choices:
            raise UserError(
                f"{key} is {found!r}; Hugging Face's classes can express only "
                f"{' or '.join(map(repr, choices))}"
            )
