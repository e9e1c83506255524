"""What became of every weight when a checkpoint was loaded."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

from tabulate import tabulate

from ddep.checkpoint.groups import GROUPS, group_of

Shape = tuple[int, ...]


@dataclass
class LoadReport:
    """The names of all weights (parameters and buffers) of a model and of a checkpoint, sorted out.

    Attributes:
        path: the checkpoint.
        own_groups: what the model's class says about its names, see
            :func:`ddep.checkpoint.groups.own_groups`.
        loaded: in both, and now the checkpoint's.
        left_out: in both, but not to be transferred (MODEL.DDEP.TRANSFER) or up to the config.
        mismatched: in both, but of different shapes: name -> (the checkpoint's, the model's).
        new: in the model only; as initialised.
        unused: in the checkpoint only.
    """

    path: str
    own_groups: Mapping[str, str] = field(default_factory=dict)
    loaded: list[str] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)
    mismatched: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    new: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def table(self) -> str:
        """How many weights of each group met which fate, as a table of text."""
        return group_table(self._fates(), self.own_groups)

    def mismatches(self) -> Iterator[str]:
        """A line for each weight whose shape is another in the checkpoint, with both shapes."""
        for name, (found, expected) in self.mismatched.items():
            yield f"{name} is {found} in {self.path} and {expected} in the model: left as it was"

    def names(self) -> str:
        """Every weight on a line of its own, behind what became of it, group by group."""
        lines = []
        own = self.own_groups
        for group in _groups(own):
            for fate, names in self._fates().items():
                lines += [f"{fate:<15} {name}" for name in names if group_of(name, own) == group]
        return "\n".join(lines)

    def _fates(self) -> dict[str, list[str]]:
        return {
            "loaded": self.loaded,
            "left out": self.left_out,
            "shape mismatch": list(self.mismatched),
            "new": self.new,
            "unused": self.unused,
        }


def group_table(
    fates: Mapping[str, Sequence[str]], own_groups: Mapping[str, str] | None = None
) -> str:
    """How many weights of each group met which fate, as a table of text.

    Args:
        fates: fate -> names of weights, a column each.
        own_groups: as in :class:`LoadReport`.
    """
    rows = []
    for group in _groups(own_groups or {}):
        counts = [
            sum(group_of(name, own_groups) == group for name in names) for names in fates.values()
        ]
        if any(counts):
            rows.append([group, *counts])
    return tabulate(rows, headers=["", *fates])


def _groups(own_groups: Mapping[str, str]) -> list[str]:
    """All groups that there are, in the order of the table."""
    return list(dict.fromkeys([*GROUPS, *own_groups.values()]))
