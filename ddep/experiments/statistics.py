"""Means with intervals, and comparisons of starts seed by seed."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Mean:
    """A mean and its 95 % interval by Student's t; no interval (None) of a single number."""

    value: float
    low: float | None
    high: float | None
    number: int

    @staticmethod
    def of(values: Sequence[float]) -> Mean:
        """Of independent numbers, at least one."""
        mean, number = float(np.mean(values)), len(values)
        if number < 2:
            return Mean(mean, None, None, number)
        error = float(np.std(values, ddof=1)) / number**0.5
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, number - 1)) * error
        return Mean(mean, mean - half, mean + half, number)


@dataclass(frozen=True)
class Comparison:
    """A start compared with the baseline on the same seeds.

    Attributes:
        mean: of the differences; above 0 is better.
        better, worse: seeds with which the start is better and worse; with others it is equal.
        sign_p: p of the exact two-sided sign test, without equal seeds.
        t_p: p of the two-sided paired t-test; None with one seed.
        adjusted_p: ``t_p`` after Holm's correction for all comparisons of the experiment.
    """

    mean: Mean
    better: int
    worse: int
    sign_p: float
    t_p: float | None
    adjusted_p: float | None = None

    @property
    def verdict(self) -> str:
        """What the numbers allow to say.

        A gain or a loss needs an adjusted p below 5 %, which implies that the interval does not
        hold 0. If no start of an experiment differs from the baseline, the chance that any
        comparison is called a gain or a loss is 5 % at most.
        """
        if self.adjusted_p is None:
            return "one seed: no interval"
        if self.adjusted_p >= 1 - CONFIDENCE:
            return "no difference shown"
        return "gain" if self.mean.value > 0 else "loss"


def compare(differences: Sequence[float]) -> Comparison:
    """Compare a start with the baseline.

    Args:
        differences: one for each seed, positive where the start is better.
    """
    mean = Mean.of(differences)
    better = sum(difference > 0 for difference in differences)
    worse = sum(difference < 0 for difference in differences)
    sign_p = stats.binomtest(better, better + worse).pvalue if better + worse else 1.0
    if mean.number < 2:
        t_p = None
    elif mean.low == mean.high:  # all differences are equal
        t_p = float(mean.value == 0)
    else:
        t_p = float(stats.ttest_1samp(differences, 0).pvalue)
    return Comparison(mean, better, worse, float(sign_p), t_p)


def holm(p_values: Sequence[float]) -> list[float]:
    """Adjust p-values so that those below a level err together with that probability at most.

    The step-down method of Holm (1979), "A simple sequentially rejective multiple test procedure".
    """
    adjusted = [0.0] * len(p_values)
    largest = 0.0
    for rank, index in enumerate(np.argsort(p_values, kind="stable")):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted
