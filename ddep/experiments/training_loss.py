"""Whether a training's loss was flat at its end."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

# A loss that falls by more than this fraction from the last fifth but one of a training to the last
# is not flat.
FLAT = 0.05


@dataclass(frozen=True)
class LossEnd:
    """The end of a training, or the mean of several.

    Attributes:
        loss: mean total loss over the last fifth of the iterations.
        change: relative change from the fifth before to that; below 0 where it falls.
    """

    loss: float
    change: float

    @property
    def is_flat(self) -> bool:
        return self.change > -FLAT


def loss_end(folder: Path) -> LossEnd | None:
    """The end of the training in a run's folder; None if its metrics.json does not tell."""
    losses: dict[int, float] = {}
    try:
        lines = (folder / "metrics.json").read_text().splitlines()
    except OSError:
        return None
    for line in lines:
        try:
            values = json.loads(line)
            losses[values["iteration"]] = values["total_loss"]
        except (ValueError, KeyError, TypeError):  # an evaluation's line, or half a line
            continue
    if not losses:
        return None
    iterations = np.array(sorted(losses))
    values = np.array([losses[iteration] for iteration in iterations])
    fifth = (iterations[-1] + 1) / 5
    last = values[iterations >= 4 * fifth]
    before = values[(iterations >= 3 * fifth) & (iterations < 4 * fifth)]
    if not len(last) or not len(before) or before.mean() == 0:
        return None
    return LossEnd(float(last.mean()), float(last.mean() / before.mean() - 1))


def mean_loss_end(ends: Sequence[LossEnd | None]) -> LossEnd | None:
    """The mean of several; None if there is none."""
    known = [end for end in ends if end is not None]
    if not known:
        return None
    return LossEnd(
        float(np.mean([end.loss for end in known])), float(np.mean([end.change for end in known]))
    )
