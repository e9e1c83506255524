"""Checks of single values in a config: what errors say of a key, in one way everywhere."""

from __future__ import annotations

import math
from typing import Any

from ddep.errors import UserError


def check_probability(key: str, value: Any) -> None:
    """UserError unless ``value``, the config's ``key``, is a number from 0 to 1."""
    if not (are_numbers([value], 1) and 0 <= value <= 1):
        raise UserError(f"{key} is {value!r}; expected a number from 0 to 1")


def check_not_negative(key: str, value: Any) -> None:
    """UserError if ``value``, the config's ``key``, is a number below 0."""
    if value < 0:
        raise UserError(f"{key} is {value}; expected 0 or more")


def check_range(key: str, values: Any, at_most: float = math.inf) -> None:
    """UserError unless ``values``, the config's ``key``, are the ends of a range above 0.

    Args:
        key: such as ``INPUT.GAUSSIAN_BLUR.SIGMA``.
        values: two finite numbers, the lower one first.
        at_most: the largest number there may be.
    """
    if not (are_numbers(values, 2) and 0 < values[0] <= values[1] <= at_most):
        limit = "" if math.isinf(at_most) else f" and up to {at_most}"
        raise UserError(
            f"{key} is {values!r}; expected two numbers above 0{limit}, the lower one first"
        )


def are_numbers(values: Any, count: int) -> bool:
    """Whether these are ``count`` finite numbers, in a list or tuple."""
    return (
        isinstance(values, (list, tuple))
        and len(values) == count
        and all(isinstance(value, (int, float)) and abs(value) < math.inf for value in values)
    )
