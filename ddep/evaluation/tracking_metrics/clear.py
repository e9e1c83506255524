"""CLEAR MOT metrics (Bernardin and Stiefelhagen 2008), as in TrackEval."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from ddep.evaluation.tracking_metrics.sequence import EPSILON, Sums, TrackedSequence

# The names of counts in results, and in sums.
COUNTS = {
    "IDSW": "idsw",
    "Frag": "frag",
    "FP": "fp",
    "FN": "fn",
    "MT": "mt",
    "PT": "pt",
    "ML": "ml",
}
THRESHOLD = 0.5  # objects of a smaller similarity do not match
_NONE = -1  # the id of no track
# Continuing a track counts more than any sum of similarities in a frame of 1000 objects.
_CONTINUED = 1000


def clear_sums(sequence: TrackedSequence) -> Sums:
    """Match frame by frame and count.

    Returns:
        float64: ``tp``, ``fn``, ``fp`` (objects), ``idsw`` (an object is matched by another track
        than the last time it was), ``frag`` (an object's track is found again after a gap),
        ``mt``, ``pt``, ``ml`` (tracks found in more than 80 %, in 20 % to 80 %, and in less than
        20 % of their frames) and ``similarity`` (the sum over the matches).
    """
    number = len(sequence.true_lengths)
    last = np.full(number, _NONE)  # by whom an object was last matched
    previous = np.full(number, _NONE)  # and by whom in the previous frame
    found_frames, starts = np.zeros(number), np.zeros(number)
    tp = idsw = 0
    similarities = 0.0
    for true_ids, found_ids, similarity in sequence.frames:
        if not similarity.size:
            continue  # a frame without any objects, or without any predictions, interrupts nothing
        continued = found_ids[None] == previous[true_ids][:, None]
        scores = np.where(similarity < THRESHOLD - EPSILON, 0, similarity + _CONTINUED * continued)
        rows, columns = linear_sum_assignment(scores, maximize=True)
        close = scores[rows, columns] > EPSILON
        rows, columns = rows[close], columns[close]
        true, found = true_ids[rows], found_ids[columns]
        idsw += np.count_nonzero((last[true] != _NONE) & (last[true] != found))
        starts[true] += previous[true] == _NONE
        found_frames[true] += 1
        last[true] = found
        previous[:] = _NONE
        previous[true] = found
        tp += len(true)
        similarities += similarity[rows, columns].sum()
    shares = found_frames / sequence.true_lengths
    mt = np.count_nonzero(shares > 0.8)
    pt = np.count_nonzero(shares >= 0.2) - mt
    sums = {
        "tp": tp,
        "fn": sequence.true_lengths.sum() - tp,
        "fp": sequence.found_lengths.sum() - tp,
        "idsw": idsw,
        "frag": np.maximum(starts - 1, 0).sum(),
        "mt": mt,
        "pt": pt,
        "ml": number - mt - pt,
        "similarity": similarities,
    }
    return {name: np.float64(value) for name, value in sums.items()}


def clear(sums: Sums) -> dict[str, float]:
    """The metrics.

    Args:
        sums: of :func:`clear_sums`, added over sequences.

    Returns:
        MOTA, MODA (MOTA without switches of identity), sMOTA (MOTA with similarities for matches,
        which MOTS calls sMOTSA) and MOTP (mean similarity of matches), at most 1.
    """
    objects = np.maximum(1, sums["tp"] + sums["fn"])
    mistakes = sums["fp"] + sums["idsw"]
    return {
        "MOTA": float((sums["tp"] - mistakes) / objects),
        "MODA": float((sums["tp"] - sums["fp"]) / objects),
        "sMOTA": float((sums["similarity"] - mistakes) / objects),
        "MOTP": float(sums["similarity"] / np.maximum(1, sums["tp"])),
    }


def clear_counts(sums: Sums) -> dict[str, float]:
    """COUNTS, of sums added over sequences."""
    return {name: float(sums[key]) for name, key in COUNTS.items()}
