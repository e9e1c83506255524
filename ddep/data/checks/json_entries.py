"""What the checks of annotation files share: entries of JSON files, which may be anything."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from typing import Any

# Kind and message of a problem.
Found = tuple[str, str]


def key_of(entry: Any, name: str) -> int | str | None:
    """``entry[name]`` if it is a number or text, else None."""
    value = entry.get(name) if isinstance(entry, dict) else None
    return value if isinstance(value, (int, str)) else None


def lacking(entry: Any, keys: Sequence[str]) -> list[str]:
    """The ``keys`` that an entry does not have."""
    return [key for key in keys if not isinstance(entry, dict) or key not in entry]


def check_category(what: str, entry: Any, known: Collection[int | str]) -> Iterator[Found]:
    """Find an entry whose ``category_id`` is not in ``known``."""
    category = key_of(entry, "category_id")
    if category not in known:
        yield "class", f"{what} has category_id {category!r}, which the data set does not have"
