"""Memory layout and compilation: the same losses, gradients and names."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import torch
from detectron2.structures import Instances
from torch import nn

from ddep.engine.execution import prepare_execution
from tests.modeling.meta_arch.batches import (
    KINDS,
    PER_PIXEL,
    config_of,
    gradients,
    model_and_batch,
    same_points,
)

pytestmark = pytest.mark.slow

MODELS = pytest.mark.parametrize("kind", [KINDS[1], *KINDS[-2:], PER_PIXEL], ids=str)


@pytest.fixture
def compiler() -> Iterator[None]:
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    yield
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()


def step(model: nn.Module, batch: list[dict[str, Any]]) -> list[torch.Tensor]:
    """The losses, and the gradients of all parameters."""
    model.zero_grad()
    torch.manual_seed(0)
    with same_points():
        losses = model(batch)
    sum(losses.values()).backward()
    return [loss.detach() for loss in losses.values()] + list(gradients(model).values())


def assert_same_step(model: nn.Module, expected: list[torch.Tensor], batch: list) -> None:
    for one, other in zip(step(model, batch), expected, strict=True):
        assert (one - other).norm() <= 1e-5 * other.norm() + 1e-9


@MODELS
def test_channels_last_changes_the_layout_alone(kind: dict[str, Any]) -> None:
    model, batch = model_and_batch(kind)
    expected, names = step(model, batch[:3]), list(model.state_dict())
    parameters = list(model.parameters())
    prepare_execution(config_of(kind, CHANNELS_LAST=True), model)
    assert list(model.state_dict()) == names
    assert all(one is other for one, other in zip(model.parameters(), parameters, strict=True))
    weight = model.backbone.patch_embed.proj.weight
    assert weight.is_contiguous(memory_format=torch.channels_last)
    seen = []
    model.backbone.patch_embed.register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    assert_same_step(model, expected, batch[:3])
    assert seen[0].is_contiguous(memory_format=torch.channels_last)
    assert not seen[0].is_contiguous()


def resized(batch: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Images of 70 rows, which are padded to 128."""
    items = []
    for item in batch:
        other = {**item, "image": torch.ones(3, 70, 64).to(item["image"].dtype)}
        if "noise" in item:
            other["noise"] = other["image"]
        else:
            other["instances"] = Instances((70, 64))
            other["instances"].gt_classes = item["instances"].gt_classes
            other["instances"].gt_masks = torch.ones(len(item["instances"]), 70, 64).bool()
        items.append(other)
    return items


@pytest.mark.parametrize(
    ("kind", "networks", "sizes"), [(KINDS[1], 3, 1), (KINDS[-1], 3, 2), (PER_PIXEL, 2, 1)], ids=str
)
@pytest.mark.usefixtures("compiler")
def test_compiled_networks_compute_the_same(
    kind: dict[str, Any], networks: int, sizes: int
) -> None:
    """Also for another size than the first."""
    model, batch = model_and_batch(kind)
    batches = [batch[:1]] if sizes == 1 else [batch[:1], resized(batch[:1])]
    expected = [step(model, images) for images in batches]
    names = list(model.state_dict())
    prepare_execution(config_of(kind, COMPILE=True), model, backend="eager")
    assert list(model.state_dict()) == names
    for images, losses_and_gradients in zip(batches, expected, strict=True):
        assert_same_step(model, losses_and_gradients, images)
    # Each network is compiled whole, and once more for all sizes.
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == networks * sizes
    assert not torch._dynamo.utils.counters["graph_break"]


@pytest.mark.usefixtures("compiler")
def test_compiled_gradients_with_recomputation() -> None:
    """The compiler's own backward pass, of layers that are computed again in it."""
    torch.manual_seed(0)
    model, batch = model_and_batch(KINDS[0])
    expected = step(model, batch[:1])
    model.backbone.use_checkpoint = True
    model.sem_seg_head.pixel_decoder.transformer.encoder.use_checkpoint = True
    prepare_execution(config_of(KINDS[0], COMPILE=True), model, backend="aot_eager")
    assert_same_step(model, expected, batch[:1])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == 3
