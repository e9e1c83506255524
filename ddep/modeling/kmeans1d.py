"""The best partition of numbers into clusters."""

from __future__ import annotations

import numpy as np


def lowest_cluster(values: np.ndarray, clusters: int) -> float:
    """The largest number in the lowest cluster of the best k-means partition.

    Best means the smallest sum of squared distances to the clusters' means, which in one dimension
    can be found exactly: clusters are intervals of the sorted numbers, and the best start of the
    last interval never moves back when a number is added (Gronlund et al., 2017, arXiv 1701.07204,
    sections 2.1 and 2.2). Takes O(clusters * n log n) steps.

    Args:
        values: (n,) finite.
        clusters: at least 2. If there are fewer distinct numbers, the lowest stands alone.
    """
    ordered, times = np.unique(values.astype(np.float64), return_counts=True)
    clusters = min(clusters, len(ordered))
    costs = _Costs(ordered, times)
    n = len(ordered)
    # Best cost of the first b numbers in a growing number of clusters, b = 0 .. n.
    best = costs(np.zeros(n + 1, dtype=np.int64), np.arange(n + 1))
    starts = []
    for _ in range(2, clusters):
        best, start = _with_one_more(best, costs)
        starts.append(start)
    end = n
    if clusters > 1:
        candidates = np.arange(n)
        end = int((best[:n] + costs(candidates, n)).argmin())
    for start in reversed(starts):
        end = int(start[end])
    return float(ordered[end - 1])


class _Costs:
    """Sums of squared distances of intervals of sorted numbers to their means."""

    def __init__(self, ordered: np.ndarray, times: np.ndarray) -> None:
        ordered = ordered - np.average(ordered, weights=times)  # loses fewer digits
        self._number = np.concatenate([[0], times.cumsum()])
        self._sum = np.concatenate([[0], (times * ordered).cumsum()])
        self._squares = np.concatenate([[0], (times * ordered**2).cumsum()])

    def __call__(self, start: np.ndarray, end: np.ndarray | int) -> np.ndarray:
        """Of the intervals ``start`` .. ``end - 1``."""
        number = np.maximum(self._number[end] - self._number[start], 1)
        total = self._sum[end] - self._sum[start]
        squares = self._squares[end] - self._squares[start]
        return np.maximum(squares - total**2 / number, 0)


def _with_one_more(best: np.ndarray, costs: _Costs) -> tuple[np.ndarray, np.ndarray]:
    """Best costs with one cluster more, and where the last one starts, for each number of values.

    Divide and conquer: once the middle is known, it bounds the starts on both sides.
    """
    n = len(best) - 1
    improved, start = np.zeros_like(best), np.zeros(n + 1, dtype=np.int64)
    pending = [(1, n, 0, n - 1)]
    while pending:
        first, last, lowest, highest = pending.pop()
        if first > last:
            continue
        middle = (first + last) // 2
        candidates = np.arange(lowest, min(highest, middle - 1) + 1)
        totals = best[candidates] + costs(candidates, middle)
        chosen = int(totals.argmin())
        improved[middle], start[middle] = totals[chosen], candidates[chosen]
        pending.append((first, middle - 1, lowest, start[middle]))
        pending.append((middle + 1, last, start[middle], highest))
    return improved, start
