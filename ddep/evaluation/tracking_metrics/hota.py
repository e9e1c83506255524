"""Higher order tracking accuracy, HOTA (arXiv 2009.07736), as in TrackEval."""

from __future__ import annotations

import numpy as np
from scipy.optimize import linear_sum_assignment

from ddep.evaluation.tracking_metrics.sequence import EPSILON, Sums, TrackedSequence

# The similarities from which on objects may match (equation 17 averages over them).
ALPHAS = np.arange(0.05, 0.99, 0.05)


def hota_sums(sequence: TrackedSequence) -> Sums:
    """Count matches, and add up how well their tracks are associated.

    Returns:
        For each of the 19 ALPHAS, float64: ``hota_tp``, ``hota_fn``, ``hota_fp`` (numbers of
        objects), ``ass_a``, ``ass_re``, ``ass_pr`` and ``loc_a`` (sums over the matches).
    """
    true_lengths, found_lengths = sequence.true_lengths[:, None], sequence.found_lengths[None]
    alignment = _alignment(sequence)
    tp = np.zeros(len(ALPHAS))
    similarities = np.zeros(len(ALPHAS))
    matches = np.zeros((len(ALPHAS), *alignment.shape))
    for true_ids, found_ids, similarity in sequence.frames:
        # One assignment for all thresholds, which prefers tracks that fit over the whole video.
        pairs = linear_sum_assignment(
            alignment[np.ix_(true_ids, found_ids)] * similarity, maximize=True
        )
        for i, alpha in enumerate(ALPHAS):
            close = similarity[pairs] >= alpha - EPSILON
            rows, columns = pairs[0][close], pairs[1][close]
            tp[i] += len(rows)
            similarities[i] += similarity[rows, columns].sum()
            matches[i, true_ids[rows], found_ids[columns]] += 1
    either = np.maximum(1, true_lengths + found_lengths - matches)
    return {
        "hota_tp": tp,
        "hota_fn": true_lengths.sum() - tp,
        "hota_fp": found_lengths.sum() - tp,
        # Each match counts with how much of its two tracks is matched with each other.
        "ass_a": (matches * matches / either).sum(axis=(1, 2)),
        "ass_re": (matches * matches / np.maximum(1, true_lengths)).sum(axis=(1, 2)),
        "ass_pr": (matches * matches / np.maximum(1, found_lengths)).sum(axis=(1, 2)),
        "loc_a": similarities,
    }


def _alignment(sequence: TrackedSequence) -> np.ndarray:
    """How well two tracks fit over the whole video: (N, M), a Jaccard index of similarities."""
    common = np.zeros((len(sequence.true_lengths), len(sequence.found_lengths)))
    for true_ids, found_ids, similarity in sequence.frames:
        total = similarity.sum(0)[None] + similarity.sum(1)[:, None] - similarity
        share = np.divide(similarity, total, out=np.zeros_like(similarity), where=total > EPSILON)
        common[np.ix_(true_ids, found_ids)] += share
    return common / (sequence.true_lengths[:, None] + sequence.found_lengths[None] - common)


def hota(sums: Sums) -> dict[str, float]:
    """The metrics from 0 to 1, each averaged over ALPHAS.

    Args:
        sums: of :func:`hota_sums`, added over sequences.

    Returns:
        HOTA; DetA, DetRe, DetPr (accuracy, recall and precision of detection); AssA, AssRe, AssPr
        (of association); LocA (of localisation; 1 without a match).
    """
    tp, fn, fp = sums["hota_tp"], sums["hota_fn"], sums["hota_fp"]
    det_a = tp / np.maximum(1, tp + fn + fp)
    matched = np.maximum(1, tp)
    ass_a = sums["ass_a"] / matched
    curves = {
        "HOTA": np.sqrt(det_a * ass_a),
        "DetA": det_a,
        "AssA": ass_a,
        "LocA": np.where(tp > 0, sums["loc_a"] / matched, 1),
        "DetRe": tp / np.maximum(1, tp + fn),
        "DetPr": tp / np.maximum(1, tp + fp),
        "AssRe": sums["ass_re"] / matched,
        "AssPr": sums["ass_pr"] / matched,
    }
    return {name: float(curve.mean()) for name, curve in curves.items()}
