from __future__ import annotations

import math

import pytest
import torch
from detectron2.config import CfgNode, get_cfg

from ddep.config import add_ddep_config
from ddep.engine import Trainer
from ddep.errors import UserError

MAX_ITER, WARMUP, FACTOR = 40, 8, 0.1


def make_config(name: str) -> CfgNode:
    cfg = get_cfg()
    add_ddep_config(cfg)
    solver = cfg.SOLVER
    solver.LR_SCHEDULER_NAME = name
    solver.MAX_ITER, solver.WARMUP_ITERS, solver.WARMUP_FACTOR = MAX_ITER, WARMUP, FACTOR
    solver.STEPS, solver.GAMMA = (20, 30), 0.5
    return cfg


def rates(cfg: CfgNode, base: float) -> list[float]:
    """The learning rate of every iteration."""
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=base)
    schedule = Trainer.build_lr_scheduler(cfg, optimizer)
    found = []
    for _ in range(MAX_ITER):
        found.append(optimizer.param_groups[0]["lr"])
        optimizer.step()
        schedule.step()
    return found


def poly(t: int) -> float:
    """(1 - t/T)^0.9 times a warm-up factor that grows linearly to 1 (DeepLab)."""
    warmup = FACTOR + (1 - FACTOR) * min(t / WARMUP, 1)
    return warmup * (1 - t / MAX_ITER) ** 0.9


def cosine(t: int) -> float:
    """Half a cosine over all iterations, whose beginning a line from FACTOR replaces."""

    def value(s: float) -> float:
        return 0.5 * (1 + math.cos(math.pi * s / MAX_ITER))

    return value(t) if t >= WARMUP else FACTOR + (value(WARMUP) - FACTOR) * t / WARMUP


def steps(t: int) -> float:
    warmup = FACTOR + (1 - FACTOR) * min(t / WARMUP, 1)
    return warmup * 0.5 ** ((t >= 20) + (t >= 30))


@pytest.mark.parametrize(
    ("name", "formula"),
    [("WarmupPolyLR", poly), ("WarmupCosineLR", cosine), ("WarmupMultiStepLR", steps)],
)
def test_schedules_follow_their_formulas(name: str, formula) -> None:
    expected = [0.02 * formula(t) for t in range(MAX_ITER)]
    assert rates(make_config(name), 0.02) == pytest.approx(expected, rel=1e-9)


def test_an_unknown_schedule_is_named() -> None:
    with pytest.raises(UserError, match="LR_SCHEDULER_NAME is 'Cosine'; expected one of WarmupP"):
        rates(make_config("Cosine"), 0.02)
