"""Tracking metrics from similarities of objects in each frame: HOTA, CLEAR MOT and identity.

Their definitions are TrackEval's, the code that the benchmarks' servers run; all is float64.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ddep.evaluation.tracking_metrics.clear import COUNTS, clear, clear_counts, clear_sums
from ddep.evaluation.tracking_metrics.hota import hota, hota_sums
from ddep.evaluation.tracking_metrics.identity import identity, identity_sums
from ddep.evaluation.tracking_metrics.sequence import Frame, Sums, TrackedSequence, add_sums

__all__ = [
    "METRICS",
    "Frame",
    "Sums",
    "TrackedSequence",
    "add_sums",
    "class_average",
    "metrics",
    "sequence_sums",
]

# The most common first; the counts come last.
METRICS = (
    *("HOTA", "MOTA", "IDF1", "DetA", "AssA", "LocA", "DetRe", "DetPr", "AssRe", "AssPr"),
    *("sMOTA", "MODA", "MOTP", "IDP", "IDR"),
    *COUNTS,
)


def sequence_sums(sequence: TrackedSequence) -> Sums:
    """What the metrics need to know of the objects of one class in one video."""
    return hota_sums(sequence) | clear_sums(sequence) | identity_sums(sequence)


def metrics(sums: Sums) -> dict[str, float]:
    """METRICS over the videos whose sums were added: ratios in percent, and counts."""
    ratios = hota(sums) | clear(sums) | identity(sums)
    found = {name: 100 * ratio for name, ratio in ratios.items()} | clear_counts(sums)
    return {name: found[name] for name in METRICS}


def class_average(sums: Sequence[Sums]) -> dict[str, float]:
    """The mean of each ratio, and the sum of each count, over classes.

    Classes of which nothing is true and nothing predicted are left out, as TrackEval does with
    ``ignore_empty_classes``; ratios are NaN if that are all.
    """
    present = [metrics(of_class) for of_class in sums if _is_present(of_class)]
    values = {name: [of_class[name] for of_class in present] for name in METRICS}
    return {name: sum(found) if name in COUNTS else _mean(found) for name, found in values.items()}


def _mean(values: Sequence[float]) -> float:
    return float(np.mean(values)) if values else float("nan")


def _is_present(sums: Sums) -> bool:
    return bool(sums["tp"] + sums["fn"] + sums["fp"] > 0)
