"""Counts of one process and the average over several."""

from __future__ import annotations

import pytest
import torch
import torch.distributed as dist
from detectron2.utils import comm

from ddep.modeling.normalisers import average_over_processes


def test_one_process_divides_by_its_own_counts() -> None:
    counts = torch.tensor([3.0, 0.5], dtype=torch.float64)
    average = average_over_processes(counts, "cpu")
    assert average.dtype == torch.float64
    assert average.tolist() == [3, 0.5]


def test_average_over_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(comm, "get_world_size", lambda: 4)
    monkeypatch.setattr(dist, "all_reduce", lambda counts: counts.add_(torch.tensor([15, 0.5])))
    counts = torch.tensor([3.0, 0.5], dtype=torch.float64)
    assert average_over_processes(counts, "cpu").tolist() == [18 / 4, 1 / 4]
    assert counts.tolist() == [3, 0.5]


def test_nothing_to_average_over_in_any_process_counts_as_one(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert average_over_processes(torch.zeros(2).double(), "cpu").tolist() == [1, 1]
    monkeypatch.setattr(comm, "get_world_size", lambda: 4)
    monkeypatch.setattr(dist, "all_reduce", lambda counts: None)
    counts = torch.tensor([0.0, 2.0]).double()  # nothing to divide by less than 1, but nothing else
    assert average_over_processes(counts, "cpu").tolist() == [1 / 4, 2 / 4]
