"""A step of two processes has the gradients, losses and fate of one process's with the batch."""

from __future__ import annotations

import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch.multiprocessing import spawn
from torch.nn.parallel import DistributedDataParallel

from ddep.engine.train_step import TrainStep
from ddep.tasks import task_of
from tests.modeling.meta_arch.batches import (
    KINDS,
    PER_PIXEL,
    assert_same_gradients,
    config_of,
    gradients,
    model_and_batch,
    same_points,
)

pytestmark = pytest.mark.slow

PROCESSES = 2
ALL_KINDS = [*KINDS, PER_PIXEL]


def images_of_the_first(kind: dict[str, Any]) -> int:
    """How many of the eight images the first process has; losses without normalisers need half."""
    return 4 if kind == PER_PIXEL else 3


def do_step(kind: dict[str, Any], parts: int = 1, poison: bool = False) -> dict[str, Any]:
    """One step on this process's share of the batch, and what came of it."""
    model, batch = model_and_batch(kind)
    for index, inputs in enumerate(batch):
        inputs["file_name"] = f"{index}.png"
    if poison:
        image = batch[5]["image"]
        is_clip = isinstance(image, list)
        batch[5]["image"] = [frame * math.inf for frame in image] if is_clip else image * math.inf
    wrapped = model
    if dist.is_initialized():
        cut = images_of_the_first(kind)
        batch = batch[cut:] if dist.get_rank() else batch[:cut]
        wrapped = DistributedDataParallel(model)
    trained = [p for p in model.parameters() if p.requires_grad]
    before = [p.detach().clone() for p in trained]
    step = TrainStep(
        wrapped,
        [batch],
        torch.optim.SGD(trained, lr=0.1),
        normalisers=task_of(config_of(kind)).normalisers(model),
        parts=parts,
    )
    with same_points():
        result = step.run(stop=7 if dist.is_initialized() and dist.get_rank() == 1 else 0)
    unchanged = all(torch.equal(a, b) for a, b in zip(before, trained, strict=True))
    return {"gradients": gradients(model), "result": vars(result), "unchanged": unchanged}


def work(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES
    )
    found = {
        (i, parts, poison): do_step(kind, parts, poison)
        for i, kind in enumerate(ALL_KINDS)
        for parts, poison in ((1, False), (2, False), (1, True))
    }
    torch.save(found, f"{folder}/{rank}.pt")
    dist.destroy_process_group()


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[dict[tuple[int, int, bool], Any]]:
    """What each process found, by kind, parts and poison."""
    folder = tmp_path_factory.mktemp("processes")
    spawn(work, args=(str(folder),), nprocs=PROCESSES)
    return [torch.load(Path(folder, f"{rank}.pt")) for rank in range(PROCESSES)]


@functools.cache
def done_by_one_process(kind: int) -> dict[str, Any]:
    return do_step(ALL_KINDS[kind])


@pytest.mark.parametrize("parts", [1, 2])
@pytest.mark.parametrize(
    "kind", range(len(ALL_KINDS)), ids=lambda i: "-".join(map(str, ALL_KINDS[i].values()))
)
def test_gradients_and_losses_are_those_of_one_process(
    kind: int, parts: int, found: list[dict[tuple[int, int, bool], Any]]
) -> None:
    expected = done_by_one_process(kind)
    assert len(expected["gradients"]) > 50
    for process in found:
        mine = process[kind, parts, False]
        assert_same_gradients(mine["gradients"], expected["gradients"])
        assert mine["result"]["losses"] == pytest.approx(expected["result"]["losses"], rel=1e-6)
        assert mine["result"]["grad_norms"] == pytest.approx(
            expected["result"]["grad_norms"], rel=1e-6
        )
        assert not mine["unchanged"]
        # All know that one wants to stop.
        assert mine["result"]["stop"] == 7


@pytest.mark.parametrize(
    "kind", range(len(ALL_KINDS)), ids=lambda i: "-".join(map(str, ALL_KINDS[i].values()))
)
def test_the_poison_of_one_process_changes_the_weights_of_none(
    kind: int, found: list[dict[tuple[int, int, bool], Any]]
) -> None:
    for process in found:
        mine = process[kind, 1, True]
        assert mine["unchanged"]
        assert mine["result"]["skipped"]
        second = ", ".join(f"{i}.png" for i in range(images_of_the_first(ALL_KINDS[kind]), 8))
        assert mine["result"]["problem"].endswith(f"the images: {second}")
