"""Gradients of a batch in parts, compared with those of the whole.

``tests/engine/test_distributed_step.py`` spreads a batch over processes.
"""

from __future__ import annotations

from typing import Any

import pytest

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


@pytest.mark.parametrize("kind", KINDS[-4:], ids=str)
def test_part_without_targets_has_a_gradient_for_every_parameter(kind: dict[str, Any]) -> None:
    model, batch = model_and_batch(kind)
    normalisers = average_over_processes(model.normalisers(batch), "cpu")
    losses = model(batch[4:6], normalisers=normalisers)
    assert losses["loss_mask"] == losses["loss_dice"] == 0
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
