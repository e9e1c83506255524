"""Gradients of a batch in parts, and spread over processes, compared with those of the whole."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import multiprocessing
from torch.nn.parallel import DistributedDataParallel

from ddep.modeling.normalisers import add_up, average_over_processes
from tests.modeling.meta_arch.batches import (
    KINDS,
    assert_same_gradients,
    gradients,
    model_and_batch,
    same_points,
)

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("kind", KINDS, ids=str)
@pytest.mark.parametrize("cuts", [(2, 4, 6), (1, 6)])
def test_gradients_of_parts_add_up_to_those_of_the_whole(
    kind: dict[str, Any], cuts: tuple[int, ...]
) -> None:
    model, batch = model_and_batch(kind)
    ends = [0, *cuts, len(batch)]
    parts = [batch[start:end] for start, end in zip(ends[:-1], ends[1:], strict=True)]
    with same_points():
        sum(model(batch).values()).backward()
        whole = gradients(model)
        model.zero_grad()
        counts = add_up(model.normalisers(part) for part in parts)
        assert counts == pytest.approx(model.normalisers(batch), rel=1e-12)
        normalisers = average_over_processes(counts, "cpu")
        for part in parts:
            sum(model(part, normalisers=normalisers).values()).backward()
    assert_same_gradients(gradients(model), whole)


@pytest.mark.parametrize("kind", KINDS[-2:], ids=str)
def test_part_without_targets_has_a_gradient_for_every_parameter(kind: dict[str, Any]) -> None:
    model, batch = model_and_batch(kind)
    normalisers = average_over_processes(model.normalisers(batch), "cpu")
    losses = model(batch[4:6], normalisers=normalisers)
    assert losses["loss_mask"] == losses["loss_dice"] == 0
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def _process(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    found = []
    for kind in KINDS:
        model, batch = model_and_batch(kind)
        parallel = DistributedDataParallel(model)
        with same_points():
            own = batch[:3] if rank == 0 else batch[3:]
            sum(parallel(own).values()).backward()
            at_once = gradients(model)
            model.zero_grad()
            parts = [own[:2], own[2:]]
            counts = add_up(model.normalisers(part) for part in parts)
            normalisers = average_over_processes(counts, "cpu")
            with parallel.no_sync():
                sum(parallel(parts[0], normalisers=normalisers).values()).backward()
            sum(parallel(parts[1], normalisers=normalisers).values()).backward()
        found.append((at_once, gradients(model)))
    if rank == 0:
        torch.save(found, folder / "gradients.pth")
    dist.destroy_process_group()


def test_gradients_of_two_processes_are_those_of_one(tmp_path: Path) -> None:
    """Three images in one process and five in the other, at once and accumulated in two parts."""
    multiprocessing.spawn(_process, (tmp_path,), nprocs=2)
    for kind, found in zip(KINDS, torch.load(tmp_path / "gradients.pth"), strict=True):
        model, batch = model_and_batch(kind)
        with same_points():
            sum(model(batch).values()).backward()
        for gradients_of_two in found:
            assert_same_gradients(gradients_of_two, gradients(model))
