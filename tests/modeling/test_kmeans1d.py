from __future__ import annotations

from itertools import combinations

import numpy as np
import pytest

from ddep.modeling.kmeans1d import lowest_cluster


def by_hand(values: np.ndarray, clusters: int) -> float:
    """Tries every partition into intervals."""
    ordered = sorted(map(float, values))
    found = []
    for cuts in combinations(range(1, len(ordered)), clusters - 1):
        borders = [0, *cuts, len(ordered)]
        cost = 0.0
        for start, end in zip(borders, borders[1:], strict=False):
            mean = sum(ordered[start:end]) / (end - start)
            cost += sum((value - mean) ** 2 for value in ordered[start:end])
        found.append((cost, ordered[cuts[0] - 1]))
    return min(found)[1]


@pytest.mark.parametrize("clusters", [2, 3, 4])
def test_the_partition_is_the_best_of_all(clusters):
    generator = np.random.default_rng(clusters)
    for size in generator.integers(clusters + 1, 12, size=60):
        values = generator.exponential(size=size) ** 2
        assert lowest_cluster(values, clusters) == by_hand(values, clusters)


def test_repeated_numbers_weigh_as_often_as_they_come():
    generator = np.random.default_rng(0)
    for _ in range(30):
        values = np.repeat(generator.exponential(size=6), generator.integers(1, 3, size=6))
        assert lowest_cluster(values, 3) == by_hand(values, 3)


def test_large_numbers_with_small_differences():
    values = 1e6 + np.array([0.0, 0.1, 0.2, 5.0, 5.1, 9.0])
    assert lowest_cluster(values, 3) == 1e6 + 0.2


def test_fewer_numbers_than_clusters():
    assert lowest_cluster(np.full(7, 2.5), 3) == 2.5
    assert lowest_cluster(np.array([4.0, 1.0, 1.0]), 3) == 1.0
