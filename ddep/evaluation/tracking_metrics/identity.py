"""Identity metrics (arXiv 1609.01775, section 3), as in TrackEval."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from ddep.evaluation.tracking_metrics.sequence import Sums, TrackedSequence

THRESHOLD = 0.5  # objects of a smaller similarity are not the same


def identity_sums(sequence: TrackedSequence) -> Sums:
    """Give each true track at most one predicted one, so that as many objects as possible match.

    Returns:
        float64: ``idtp``, ``idfn``, ``idfp``, numbers of objects.
    """
    common = np.zeros((len(sequence.true_lengths), len(sequence.found_lengths)))
    for true_ids, found_ids, similarity in sequence.frames:
        common[np.ix_(true_ids, found_ids)] += similarity >= THRESHOLD
    # The most matches are the fewest mistakes, because the objects are what they are.
    idtp = common[linear_sum_assignment(common, maximize=True)].sum()
    return {
        "idtp": idtp,
        "idfn": sequence.true_lengths.sum() - idtp,
        "idfp": sequence.found_lengths.sum() - idtp,
    }


def identity(sums: Sums) -> dict[str, float]:
    """IDF1, IDP (precision) and IDR (recall), from 0 to 1, of sums added over sequences."""
    tp, fn, fp = sums["idtp"], sums["idfn"], sums["idfp"]
    return {
        "IDF1": float(tp / np.maximum(1, tp + 0.5 * fn + 0.5 * fp)),
        "IDP": float(tp / np.maximum(1, tp + fp)),
        "IDR": float(tp / np.maximum(1, tp + fn)),
    }
