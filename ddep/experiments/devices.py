"""Deals GPUs to runs."""

from __future__ import annotations

import os
from collections.abc import Sequence

import torch

from ddep.errors import UserError


def visible_gpus() -> list[str]:
    """The GPUs that torch can use, named as CUDA_VISIBLE_DEVICES names them."""
    number = torch.cuda.device_count()
    named = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    return named.split(",")[:number] if named else [str(i) for i in range(number)]


def chosen_gpus(names: str | None) -> list[str]:
    """The GPUs of ``--gpus 0,1``, or all that are visible.

    Raises:
        UserError: one of them is not visible.
    """
    visible = visible_gpus()
    if names is None:
        return visible
    chosen = names.split(",")
    for name in chosen:
        if name not in visible:
            there = (
                f"expected some of {', '.join(visible)}" if visible else "torch can use none here"
            )
            raise UserError(f"--gpus {names}: there is no GPU {name}; {there}")
    return chosen


class Gpus:
    """GPUs and how many runs each has.

    Args:
        names: as CUDA_VISIBLE_DEVICES takes them; none at all on a machine without.
    """

    def __init__(self, names: Sequence[str]) -> None:
        self._runs = dict.fromkeys(names, 0)

    def __len__(self) -> int:
        return len(self._runs)

    def take(self, number: int) -> list[str]:
        """Take the ``number`` GPUs with the fewest runs.

        Raises:
            UserError: there are not as many.
        """
        if number > len(self._runs):
            raise UserError(
                f"num_gpus is {number}, but there are {len(self._runs)} GPUs for this experiment: "
                f"{', '.join(self._runs) or 'none'}"
            )
        taken = sorted(self._runs, key=self._runs.__getitem__)[:number]
        for name in taken:
            self._runs[name] += 1
        return taken

    def give_back(self, names: Sequence[str]) -> None:
        """Return what :meth:`take` gave."""
        for name in names:
            self._runs[name] -= 1
