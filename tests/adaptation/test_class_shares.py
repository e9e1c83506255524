"""Running shares of classes against their formula, over parts and processes."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from ddep.adaptation.class_shares import ClassShares

STEPS = torch.rand(4, 6, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def _expected() -> list[np.ndarray]:
    shares = [STEPS[0].numpy().mean(0)]
    for step in STEPS[1:].numpy():
        shares.append(0.9 * shares[-1] + 0.1 * step.mean(0))
    return shares


@pytest.mark.parametrize("sizes", [[6], [2, 2, 2], [1, 5]])
def test_shares_follow_their_formula(sizes: list[int]) -> None:
    module = ClassShares(3, 0.9, initial=0.001)
    assert (module.shares == 0.001).all()
    for step, expected in zip(STEPS, _expected(), strict=True):
        before = module.shares.clone()
        for part in step.split(sizes):
            module.gather(part)
        assert torch.equal(module.shares, before)
        module.finish_step(skipped=False)
        np.testing.assert_allclose(module.shares, expected, rtol=1e-12)


def test_processes_share_the_mean_over_all_images(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process has the last four images of each step."""
    module = ClassShares(3, 0.9, initial=0.001)
    monkeypatch.setattr("detectron2.utils.comm.get_world_size", lambda: 2)
    for step, expected in zip(STEPS, _expected(), strict=True):
        others = torch.cat([step[2:].sum(0), torch.tensor([4.0])])
        monkeypatch.setattr(
            "torch.distributed.all_reduce", lambda mine, others=others: mine.add_(others)
        )
        module.gather(step[:2])
        module.finish_step(skipped=False)
        np.testing.assert_allclose(module.shares, expected, rtol=1e-12)


def test_skipped_steps_are_dropped() -> None:
    module = ClassShares(3, 0.9, initial=0.001)
    for skipped, step in zip((True, False, True, False), STEPS, strict=True):
        module.gather(step)
        module.finish_step(skipped)
    expected = 0.9 * STEPS[1].mean(0) + 0.1 * STEPS[3].mean(0)
    torch.testing.assert_close(module.shares, expected)


def test_a_saved_state_continues() -> None:
    def run(module: ClassShares, steps: Tensor) -> None:
        for step in steps:
            module.gather(step)
            module.finish_step(skipped=False)

    whole, first, second = (ClassShares(3, 0.9, initial=0.001) for _ in range(3))
    run(whole, STEPS)
    run(first, STEPS[:2])
    second.load_state_dict(first.state_dict())
    run(second, STEPS[2:])
    assert torch.equal(second.shares, whole.shares)
