"""Read the long lists of classes in ``tables/``."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from pathlib import Path


def read_table(name: str) -> list[dict[str, str]]:
    """The rows of ``tables/<name>.csv`` in the file's order, each a dict by column."""
    path = Path(__file__).parent / "tables" / f"{name}.csv"
    with path.open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def color(row: Mapping[str, str]) -> list[int]:
    """The colour [R, G, B], 0..255, of a row that has one."""
    return [int(row[channel]) for channel in ("red", "green", "blue")]
