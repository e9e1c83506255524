"""Report what happened to every weight when a checkpoint was loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tabulate import tabulate

from ddep.checkpoint.groups import GROUPS, group_of

Shape = tuple[int, ...]


@dataclass
class LoadReport:
    """The names of all weights (parameters and buffers) of a model and a checkpoint, by outcome.

    Attributes:
        path: the checkpoint.
        own_groups: the model's own groups, see :func:`ddep.checkpoint.groups.own_groups`.
        loaded: in both, and copied from the checkpoint.
        left_out: in both, but not transferred (MODEL.DDEP.TRANSFER) or determined by the config.
        mismatched: in both, but with different shapes: name -> (the checkpoint's, the model's).
        new: only in the model and not determined by the config; as initialised.
        unused: only in the checkpoint.
    """

    path: str
    own_groups: Mapping[str, str] = field(default_factory=dict)
    loaded: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    mismatched: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def table(self) -> str:
        """A text table of the numbers of weights by group and outcome."""
        return group_table(self._outcomes(), self.own_groups)

    def mismatches(self) -> Iterator[str]:
        """A line for each weight with another shape in the checkpoint, with both shapes."""
        for name, (found, expected) in self.mismatched.items():
            yield f"{name} is {found} in {self.path} and {expected} in the model: left as it was"

    def names(self) -> str:
        """A line for each weight, its outcome first, group by group."""
        lines = []
        own = self.own_groups
        for group in _groups(own):
            for outcome, names in self._outcomes().items():
                lines += [f"{outcome:<15} {name}" for name in names if group_of(name, own) == group]
        return "\n".join(lines)

    def _outcomes(self) -> dict[str, list[str]]:
        return {
            "loaded": self.loaded,
            "left out": self.left_out,
            "shape mismatch": list(self.mismatched),
            "new": self.new,
            "unused": self.unused,
        }


def group_table(
    outcomes: Mapping[str, Sequence[str]], own_groups: Mapping[str, str] | None = None
) -> str:
    """A text table of the numbers of weights by group and outcome.

    Args:
        outcomes: outcome -> names of weights; each is a column.
        own_groups: as in :class:`LoadReport`.
    """
    rows = []
    for group in _groups(own_groups or {}):
        counts = [
            sum(group_of(name, own_groups) == group for name in names)
            for names in outcomes.values()
        ]
        if any(counts):
            rows.append([group, *counts])
    return tabulate(rows, headers=["", *outcomes])


def _groups(own_groups: Mapping[str, str]) -> list[str]:
    """All groups, in the order of the table."""
    return list(dict.fromkeys([*GROUPS, *own_groups.values()]))
