"""What the same weights are called in two projects, in a form that is read both ways."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ddep.checkpoint.conversion.entries import Entries, Entry, Weights, joined

# A name of ours, and theirs: one, or several whose weights lie one below the other in ours (query,
# key, value). "#" stands for a number and "*" for a word, as often and in the same order on both
# sides.
Row = tuple[str, str | tuple[str, ...]]

_PLACEHOLDERS = {"#": r"(\d+)", "*": r"([a-z_]+)"}


class NameTable:
    """Names of ours and of theirs, row by row; the first row that matches counts."""

    def __init__(self, rows: Iterable[Row]) -> None:
        """
        Args:
            rows: see :data:`Row`.
        """
        parts = [(ours, (theirs,) if isinstance(theirs, str) else theirs) for ours, theirs in rows]
        self._from_ours = [(_pattern(ours), theirs) for ours, theirs in parts]
        self._from_theirs = [(_pattern(name), (ours,)) for ours, theirs in parts for name in theirs]

    def ours(self, theirs: str) -> str | None:
        """Our name of the weight that they call ``theirs``, or that it is a part of."""
        names = _translate(theirs, self._from_theirs)
        return names[0] if names else None

    def theirs(self, ours: str) -> tuple[str, ...]:
        """Their names of the parts of the weight that we call ``ours``; empty if they have none."""
        return _translate(ours, self._from_ours)

    def entries(self, weights: Weights) -> Entries:
        """Their weights under our names, joined where ours is one of several.

        Counters of batch norms have no place, as frozen ones do not count.

        Raises:
            UserError: one of several is missing.
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
