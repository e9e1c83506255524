"""A table of two projects' names for the same weights, which translates in both directions."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ddep.checkpoint.conversion.entries import Entries, Entry, Weights, joined

# A name of ours, and theirs: one, or several whose weights are concatenated in ours (query, key,
# value). "#" stands for a number and "*" for a word; both sides have the same ones in the same
# order.
Row = tuple[str, str | tuple[str, ...]]

_PLACEHOLDERS = {"#": r"(\d+)", "*": r"([a-z_]+)"}


class NameTable:
    """Our names and theirs, row by row; the first row that matches counts."""

    def __init__(self, rows: Iterable[Row]) -> None:
        """
        Args:
            rows: see :data:`Row`.
        """
        parts = [(ours, (theirs,) if isinstance(theirs, str) else theirs) for ours, theirs in rows]
        self._from_ours = [(_pattern(ours), theirs) for ours, theirs in parts]
        self._from_theirs = [(_pattern(name), (ours,)) for ours, theirs in parts for name in theirs]

    def ours(self, theirs: str) -> str | None:
        """Our name of the weight that is, or contains, their ``theirs``."""
        names = _translate(theirs, self._from_theirs)
        return names[0] if names else None

    def theirs(self, ours: str) -> tuple[str, ...]:
        """Their names of the parts of our weight ``ours``; empty if they have none."""
        return _translate(ours, self._from_ours)

    def entries(self, weights: Weights) -> Entries:
        """Put their weights under our names, and join those that are one weight here.

        Counters of batch norms are left out, because frozen batch norms have none.

        Raises:
            UserError: a part of a joined weight is missing.
        """
        entries: Entries = {}
        for name, tensor in weights.items():
            target = None if name.endswith(".num_batches_tracked") else self.ours(name)
            if target is None or target in entries:
                continue
            sources = self.theirs(target)
            entries[target] = joined(weights, sources) if sources[1:] else Entry(sources, tensor)
        return entries


def _pattern(template: str) -> re.Pattern[str]:
    parts = re.split(r"([#*])", template)
    return re.compile("".join(_PLACEHOLDERS.get(part) or re.escape(part) for part in parts))


def _translate(
    name: str, rows: Sequence[tuple[re.Pattern[str], tuple[str, ...]]]
) -> tuple[str, ...]:
    for pattern, templates in rows:
        match = pattern.fullmatch(name)
        if match:
            return tuple(_fill(template, match.groups()) for template in templates)
    return ()


def _fill(template: str, words: tuple[str, ...]) -> str:
    remaining = iter(words)
    return re.sub(r"[#*]", lambda _: next(remaining), template)
