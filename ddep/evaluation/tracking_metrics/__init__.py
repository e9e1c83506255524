"""Tracking metrics from similarities of objects in each frame: HOTA, CLEAR MOT and identity.

Their definitions are TrackEval's, the code that the benchmarks' servers run; all is float64.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ddep.evaluation.tracking_metrics.clear import clear, clear_counts, clear_sums
from ddep.evaluation.tracking_metrics.hota import hota, hota_sums
from ddep.evaluation.tracking_metrics.identity import identity, identity_sums
from ddep.evaluation.tracking_metrics.sequence import Frame, Sums, TrackedSequence, add_sums

__all__ = ["Frame", "Sums", "TrackedSequence", "add_sums", "class_average", "metrics", "sums"]


def sums(sequence: TrackedSequence) -> Sums:
    """What the metrics need to know of the objects of one class in one video."""
    return hota_sums(sequence) | clear_sums(sequence) | identity_sums(sequence)


def metrics(sums: Sums) -> dict[str, float]:
    """All metrics over the videos whose sums were added: ratios in percent, and counts."""
    ratios = hota(sums) | clear(sums) | identity(sums)
    return {name: 100 * ratio for name, ratio in ratios.items()} | clear_counts(sums)


def class_average(sums: Mapping[str, Sums]) -> dict[str, float]:
    """The mean of each ratio, and the sum of each count, over classes.

    Classes of which nothing is true and nothing predicted are left out, as TrackEval does with
    ``ignore_empty_classes``; NaN if that are all.
    """
    of_classes = [metrics(x) for x in sums.values()]
    present = [m for m, x in zip(of_classes, sums.values(), strict=True) if _is_present(x)]
    counts = clear_counts(next(iter(sums.values()))).keys()
    return {
        name: float(sum(m[name] for m in present))
        if name in counts
        else float(np.mean([m[name] for m in present]))
        if present
        else float("nan")
        for name in of_classes[0]
    }


def _is_present(sums: Sums) -> bool:
    return bool(sums["tp"] + sums["fn"] + sums["fp"] > 0)
