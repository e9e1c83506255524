"""Intervals and tests equal SciPy's, and nothing is called a gain by chance."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from ddep.experiments.statistics import Mean, compare, holm


def test_intervals_and_p_values_are_those_of_scipy() -> None:
    numbers = np.random.default_rng(1)
    for number in (2, 3, 5, 10):
        values = numbers.normal(1.0, 2.0, number)
        found = compare(list(values))
        test = stats.ttest_1samp(values, 0)
        interval = test.confidence_interval(0.95)
        assert found.mean.value == pytest.approx(values.mean())
        assert (found.mean.low, found.mean.high) == pytest.approx((interval.low, interval.high))
        assert found.t_p == pytest.approx(test.pvalue)
        better = int((values > 0).sum())
        assert (found.better, found.worse) == (better, number - better)
        assert found.sign_p == pytest.approx(stats.binomtest(better, number).pvalue)


def test_sign_test_of_five_seeds_by_hand() -> None:
    assert compare([1, 2, 3, 4, 5]).sign_p == pytest.approx(2 / 2**5)
    assert compare([1, 2, 3, 4, -5]).sign_p == pytest.approx(2 * (5 + 1) / 2**5)
    assert compare([1, 2, 0, 0, 0]).sign_p == pytest.approx(2 / 2**2)  # equal seeds do not count
    assert compare([0, 0]).sign_p == 1


def test_one_seed_has_no_interval_and_no_verdict() -> None:
    found = compare([3.0])
    assert found.mean == Mean(3.0, None, None, 1)
    assert found.verdict == "one seed: no interval"


@pytest.mark.parametrize(("difference", "p"), [(0.0, 1.0), (2.0, 0.0)])
def test_equal_differences_have_an_interval_without_width(difference: float, p: float) -> None:
    found = compare([difference] * 3)
    assert (found.mean.low, found.mean.high, found.t_p) == (difference, difference, p)


def test_holm_by_hand() -> None:
    # 0.01 * 4, 0.02 * 3, 0.03 * 2 = 0.06 and 0.04 * 1, which may not be smaller than 0.06
    assert holm([0.04, 0.01, 0.03, 0.02]) == pytest.approx([0.06, 0.04, 0.06, 0.06])
    assert holm([0.6, 0.7]) == [1.0, 1.0]
    assert holm([]) == []


def verdicts(numbers: np.random.Generator, comparisons: int, effect: float = 0.0) -> list[str]:
    """Of an experiment with five seeds, whose starts differ by ``effect``."""
    found = [compare(list(numbers.normal(effect, 1.0, 5))) for _ in range(comparisons)]
    adjusted = holm([comparison.t_p for comparison in found])
    return [
        replace(comparison, adjusted_p=p).verdict
        for comparison, p in zip(found, adjusted, strict=True)
    ]


@pytest.mark.parametrize("comparisons", [1, 10])
def test_equal_starts_are_called_different_in_one_experiment_of_twenty(comparisons: int) -> None:
    numbers = np.random.default_rng(0)
    draws = 300
    wrong = sum(
        any(verdict != "no difference shown" for verdict in verdicts(numbers, comparisons))
        for _ in range(draws)
    )
    # 5 % are expected; three standard deviations of a count of 300 draws are 3.8 %.
    assert 0.012 < wrong / draws < 0.088


def test_a_large_difference_is_called_a_gain_or_a_loss() -> None:
    numbers = np.random.default_rng(0)
    assert set(verdicts(numbers, 4, effect=10.0)) == {"gain"}
    assert set(verdicts(numbers, 4, effect=-10.0)) == {"loss"}


def test_nothing_is_called_a_gain_if_its_interval_holds_zero() -> None:
    numbers = np.random.default_rng(2)
    seen = set()
    for _ in range(500):
        found = compare(list(numbers.normal(3.0, 1.0, 3)))
        found = replace(found, adjusted_p=found.t_p)  # an experiment of one comparison
        seen.add(found.verdict)
        assert (found.verdict == "no difference shown") == (found.mean.low < 0 < found.mean.high)
    assert seen == {"gain", "no difference shown"}
