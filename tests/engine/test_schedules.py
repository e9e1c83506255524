from __future__ import annotations

import math
from types import SimpleNamespace
from unittest.mock import Mock

import pytest
import torch
from detectron2.config import CfgNode, get_cfg

from ddep.config import add_ddep_config
from ddep.engine import Trainer
from ddep.engine.schedule import HeadLRScheduler, build_schedule
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


def make_hook(
    cfg: CfgNode, bases: tuple[float, ...]
) -> tuple[HeadLRScheduler, list[torch.optim.Optimizer]]:
    """A hook for one optimizer of each learning rate; the trainer has the first one's schedule."""
    optimizers = [torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=lr) for lr in bases]
    schedule, *others = [build_schedule(cfg, optimizer) for optimizer in optimizers]
    hook = HeadLRScheduler(others)
    hook.trainer = SimpleNamespace(
        optimizer=optimizers[0], scheduler=schedule, storage=Mock(), max_iter=MAX_ITER, iter=0
    )
    hook.before_train()
    return hook, optimizers


def advance(hook: HeadLRScheduler, optimizers: list[torch.optim.Optimizer], steps: int) -> None:
    for _ in range(steps):
        for optimizer in optimizers:
            optimizer.step()
        hook.after_step()


@pytest.mark.parametrize("name", ["WarmupPolyLR", "WarmupCosineLR", "WarmupMultiStepLR"])
def test_rates_of_all_optimizers_have_one_factor_also_after_a_resume(name: str) -> None:
    cfg = make_config(name)
    hook, optimizers = make_hook(cfg, (0.02, 1e-4))
    expected = []
    for _ in range(MAX_ITER):
        expected.append([optimizer.param_groups[0]["lr"] for optimizer in optimizers])
        assert expected[-1][1] == pytest.approx(expected[-1][0] * 1e-4 / 0.02)
        advance(hook, optimizers, 1)
    # The state wins over the config, like that of the first schedule.
    resumed, others = make_hook(cfg, (0.02, 5e-4))
    first, started = make_hook(cfg, (0.02, 1e-4))
    advance(first, started, 25)
    resumed.load_state_dict(first.state_dict())
    for optimizer, saved in zip(others, started, strict=True):
        optimizer.load_state_dict(saved.state_dict())
    for iteration in range(25, MAX_ITER):
        assert [o.param_groups[0]["lr"] for o in others] == expected[iteration]
        advance(resumed, others, 1)


def test_the_state_of_one_schedule_is_that_of_older_checkpoints() -> None:
    hook, optimizers = make_hook(make_config("WarmupPolyLR"), (0.02,))
    advance(hook, optimizers, 3)
    assert hook.state_dict() == {"base_lrs": [0.02], "last_epoch": 3}
