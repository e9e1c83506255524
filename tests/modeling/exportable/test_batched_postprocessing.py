"""Segmentations of a batch equal those of its images one by one."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from ddep.modeling.exportable.batched_postprocessing import (
    batched_instances,
    batched_panoptic,
    batched_semantic,
)
from ddep.modeling.postprocessing import (
    instance_inference,
    panoptic_inference,
    semantic_inference,
)

IMAGES, QUERIES, CLASSES = 6, 9, 4


@pytest.fixture(scope="module")
def logits() -> tuple[Tensor, Tensor]:
    """Masks that are discs of many sizes, one empty; the last image has no objects at all."""
    generator = torch.Generator().manual_seed(0)
    mask_cls = 3 * torch.randn(IMAGES, QUERIES, CLASSES + 1, generator=generator)
    mask_cls[-1, :, -1] += 50
    centres = torch.rand(IMAGES, QUERIES, 2, 1, 1, generator=generator) * 30
    radii = torch.rand(IMAGES, QUERIES, 1, 1, generator=generator) * 12
    radii[:, 0] = -1
    y, x = torch.meshgrid(torch.arange(26.0), torch.arange(31.0), indexing="ij")
    distances = ((y - centres[:, :, 0]) ** 2 + (x - centres[:, :, 1]) ** 2).sqrt()
    return mask_cls, radii - distances


def test_semantic(logits: tuple[Tensor, Tensor]) -> None:
    classes = batched_semantic(*logits)
    for one, mask_cls, mask_pred in zip(classes, *logits, strict=True):
        scores = semantic_inference(mask_cls, mask_pred)
        first, second = scores.topk(2, dim=0).values
        clear = first - second > 1e-6 * first  # where rounding does not decide
        assert clear.float().mean() > 0.9
        assert torch.equal(one[clear], scores.argmax(0)[clear])


@pytest.mark.parametrize("things", [{0, 2}, set(), {0, 1, 2, 3}])
@pytest.mark.parametrize("thresholds", [(0.3, 0.7, 0.5), (0.0, 0.0, 0.0), (0.6, 0.95, 0.5)])
def test_panoptic(
    logits: tuple[Tensor, Tensor], things: set[int], thresholds: tuple[float, ...]
) -> None:
    keys = ("object_mask_threshold", "overlap_threshold", "mask_threshold")
    options = {"thing_ids": things, **dict(zip(keys, thresholds, strict=True))}
    found = batched_panoptic(*logits, **options)
    segments_in_all = 0
    for image in range(IMAGES):
        expected, segments = panoptic_inference(logits[0][image], logits[1][image], **options)
        assert torch.equal(found["panoptic"][image], expected)
        ids = found["segment_ids"][image]
        begins = ids > 0
        assert ids[begins].tolist() == [segment["id"] for segment in segments]
        classes = found["segment_classes"][image][begins].tolist()
        assert classes == [segment["category_id"] for segment in segments]
        scores = torch.tensor([segment["score"] for segment in segments])
        torch.testing.assert_close(found["segment_scores"][image][begins], scores)
        segments_in_all += len(segments)
    assert not segments and segments_in_all > IMAGES


@pytest.mark.parametrize("class_ids", [None, {0, 2}])
@pytest.mark.parametrize("max_detections", [5, 100])
def test_instances(
    logits: tuple[Tensor, Tensor], class_ids: set[int] | None, max_detections: int
) -> None:
    options = {"max_detections": max_detections, "class_ids": class_ids}
    found = batched_instances(*logits, **options)
    assert found["masks"].shape[1] == min(max_detections, QUERIES * CLASSES)
    for image in range(IMAGES):
        expected = instance_inference(logits[0][image], logits[1][image], **options)
        filled = expected.pred_masks.flatten(1).any(1)
        kept = found["scores"][image] > 0
        assert filled.any()
        assert torch.equal(found["masks"][image][kept], expected.pred_masks[filled])
        assert torch.equal(found["boxes"][image][kept], expected.pred_boxes.tensor[filled])
        assert torch.equal(found["classes"][image][kept], expected.pred_classes[filled])
        torch.testing.assert_close(found["scores"][image][kept], expected.scores[filled])
