"""Counts of one process, and their average over several."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from detectron2.utils import comm

from ddep.modeling.normalisers import add_up, average_over_processes


def test_one_process_divides_by_its_own_counts() -> None:
    average = average_over_processes({"masks": 3, "class_weights": 0.5}, "cpu")
    assert average == {"masks": 3, "class_weights": 0.5}
    assert all(count.dtype == torch.float64 and count.ndim == 0 for count in average.values())


def test_counts_of_parts_are_added_up_by_name() -> None:
    parts = [{"masks": 3, "pixels": 0.1}, {"pixels": 0.2, "masks": 0}, {"pixels": 0.3}]
    assert add_up(iter(parts)) == {"masks": 3, "pixels": 0.1 + 0.2 + 0.3}


def test_average_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm, "get_world_size", lambda: 4)
    monkeypatch.setattr(dist, "all_reduce", lambda counts: counts.add_(torch.tensor([15, 0.5])))
    counts = {"masks": 3, "pixels": 0.5}
    assert average_over_processes(counts, "cpu") == {"masks": 18 / 4, "pixels": 1 / 4}


def test_the_order_of_names_does_not_matter(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes exchange only numbers, not names."""
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    monkeypatch.setattr(dist, "all_reduce", lambda counts: counts.mul_(torch.tensor([2, 4])))
    expected = {"masks": 3, "pixels": 20}
    assert average_over_processes({"masks": 3, "pixels": 10}, "cpu") == expected
    assert average_over_processes({"pixels": 10, "masks": 3}, "cpu") == expected


def test_nothing_to_average_over_in_any_process_counts_as_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert average_over_processes({"masks": 0, "pixels": 0.0}, "cpu") == {"masks": 1, "pixels": 1}
    monkeypatch.setattr(comm, "get_world_size", lambda: 4)
    monkeypatch.setattr(dist, "all_reduce", lambda counts: None)
    counts = {"masks": 0, "pixels": 2}  # only a total of 0 is replaced
    assert average_over_processes(counts, "cpu") == {"masks": 1 / 4, "pixels": 2 / 4}
