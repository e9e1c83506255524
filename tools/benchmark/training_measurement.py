"""Time a training step with each option; every round runs every option once."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from detectron2.config import CfgNode

from training_memory import step_memory
from training_options import Option, make_step

# Steps before anything is measured, in which memory is allocated and kernels are compiled.
_WARM_UP = 2


@dataclass(frozen=True)
class Result:
    """The measurements of one option."""

    images_per_second: float
    memory_bytes: int


def measure(
    cfg: CfgNode, options: Sequence[Option], image_size: int, batch_size: int, rounds: int
) -> dict[Option, Result]:
    """Measure time and memory of a step with each option.

    Args:
        cfg, image_size, batch_size: see :func:`make_step`.
        options: all their models are in memory at the same time.
        rounds: timed steps of each option, whose median counts.

    Returns:
        A result for each option.
    """
    device = torch.device(cfg.MODEL.DEVICE)
    steps, memory = {}, {}
    for option in options:
        model, step = make_step(cfg, option, image_size, batch_size)
        for _ in range(_WARM_UP):
            step()
        tensors = [*model.parameters(), *model.buffers()]
        memory[option] = step_memory(step, tensors, device)
        steps[option] = step
    seconds: dict[Option, list[float]] = {option: [] for option in options}
    for _ in range(rounds):
        for option, step in steps.items():
            seconds[option].append(_time(step, device))
    return {
        option: Result(batch_size / statistics.median(seconds[option]), memory[option])
        for option in options
    }


def _time(step: Callable[[], object], device: torch.device) -> float:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    start = time.perf_counter()
    step()
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    return time.perf_counter() - start
