"""The modules of DETR's mask head, compared with Hugging Face's."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn
from transformers.models.detr.modeling_detr import DetrMaskHeadSmallConv, DetrMHAttentionMap

from ddep.checkpoint.conversion.huggingface_detr_names import detr_names
from ddep.modeling.detr_mask_head import AttentionMaps, MaskHeadSmallConv
from tests.huggingface_map import part_state, randomise

DIM, HEADS, QUERIES = 64, 8, 5
NAMES = detr_names(segmentation=True, timm=True, in_memory=True)


def with_weights_of(theirs: nn.Module, ours: nn.Module, prefix: str) -> None:
    randomise(theirs)
    ours.load_state_dict(part_state(theirs.state_dict(), prefix, NAMES, prefix))


@pytest.fixture
def padding() -> Tensor:
    """The second of two images of 3 x 4 cells covers two rows and three columns."""
    padding = torch.zeros(2, 3, 4, dtype=torch.bool)
    padding[1, 2:] = padding[1, :, 3:] = True
    return padding


@torch.no_grad()
def test_maps_are_hugging_faces(padding: Tensor) -> None:
    torch.manual_seed(0)
    theirs, ours = DetrMHAttentionMap(DIM, HEADS), AttentionMaps(DIM, HEADS)
    with_weights_of(theirs, ours, "bbox_attention.")
    queries, memory = torch.randn(2, QUERIES, DIM), torch.randn(2, DIM, 3, 4)
    mask = torch.where(padding, torch.finfo(torch.float32).min, 0.0)[:, None, None]
    expected = theirs(queries, memory, attention_mask=mask)
    images, numbers = torch.tensor([1, 0, 1]), torch.tensor([4, 2, 0])
    found = ours(queries[images, numbers], images, memory, ~padding)
    torch.testing.assert_close(found, expected[images, numbers], atol=1e-6, rtol=1e-5)
    torch.testing.assert_close(found.sum((1, 2, 3)), torch.ones(3))
    assert not found[:, :, 2][images == 1].any()
    without = ours(queries[images, numbers], images, memory)
    assert without[0, :, 2].min() > 0
    torch.testing.assert_close(without[1], found[1])


@torch.no_grad()
@pytest.mark.parametrize("dim", [DIM, 128])
def test_masks_are_hugging_faces(dim: int) -> None:
    torch.manual_seed(0)
    widths = (32, 16, 8)
    theirs = DetrMaskHeadSmallConv(dim + HEADS, list(widths), dim)
    ours = MaskHeadSmallConv(dim, HEADS, widths)
    with_weights_of(theirs, ours, "mask_head.")
    image, maps = torch.randn(2, dim, 3, 4), torch.rand(2, QUERIES, HEADS, 3, 4)
    features = [
        torch.randn(2, width, 3 * 2**n - n, 4 * 2**n) for n, width in enumerate(widths, start=1)
    ]
    expected = theirs(image, maps, features)[:, 0].unflatten(0, (2, QUERIES))
    images, numbers = torch.tensor([1, 0, 1]), torch.tensor([4, 2, 0])
    found = ours(image, maps[images, numbers], images, tuple(features))
    assert found.shape == (3, 21, 32)
    torch.testing.assert_close(found, expected[images, numbers], atol=1e-5, rtol=1e-5)


def test_without_queries_all_weights_get_a_gradient_of_zero() -> None:
    """DistributedDataParallel waits for the gradient of every weight."""
    maps, head = AttentionMaps(DIM, HEADS), MaskHeadSmallConv(DIM, HEADS, (32, 16, 8))
    images = torch.zeros(0, dtype=torch.int64)
    memory = torch.randn(2, DIM, 3, 4)
    features = [torch.randn(2, n, s, s) for n, s in ((32, 6), (16, 12), (8, 24))]
    found = maps(torch.zeros(0, DIM), images, memory)
    head(memory, found, images, tuple(features)).sum().backward()
    for parameter in [*maps.parameters(), *head.parameters()]:
        assert parameter.grad is not None and not parameter.grad.any()
