"""Semantic, panoptic and instance segmentation from class and mask logits.

This is the inference of MaskFormer (arXiv 2107.06278, section 3.4), which Mask2Former (arXiv
2112.01527) adopts, for one image. Shapes: Q queries, K classes, logits ``mask_cls`` (Q, K+1), whose
last class is no-object, and ``mask_pred`` (Q, H, W), both floating point.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor


def semantic_inference(mask_cls: Tensor, mask_pred: Tensor) -> Tensor:
    """Compute class scores for every pixel.

    Args:
        mask_cls: (Q, K+1) logits.
        mask_pred: (Q, H, W) logits.

    Returns:
        (K, H, W): the sum over queries of class probability times mask probability.
    """
    class_probabilities = mask_cls.softmax(-1)[:, :-1]
    return torch.einsum("qk,qhw->khw", class_probabilities, mask_pred.sigmoid())


def panoptic_inference(
    mask_cls: Tensor,
    mask_pred: Tensor,
    *,
    thing_ids: Collection[int],
    object_mask_threshold: float,
    overlap_threshold: float,
    mask_threshold: float = 0.5,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Compute segments that do not overlap.

    Each pixel goes to the query with the largest product of class and mask probability, and to no
    segment where that query's mask probability is below a threshold. Stuff of one class is one
    segment.

    Args:
        mask_cls: (Q, K+1) logits.
        mask_pred: (Q, H, W) logits.
        thing_ids: classes whose segments stay apart; the others are stuff.
        object_mask_threshold: a query counts if its class probability is above this.
        overlap_threshold: a query is dropped if it keeps less than this part of its mask, the
            pixels with a probability of at least 0.5.
        mask_threshold: 0.5 for Mask2Former; 0 for MaskFormer, where only the pixels of dropped
            queries are in no segment.

    Returns:
        (H, W) int32 with segment ids from 1, 0 where there is none; and per segment ``id``,
        ``isthing``, ``category_id``, the class in [0, K), and ``score``, its probability according
        to the segment's first query.
    """
    scores, classes = mask_cls.softmax(-1).max(-1)
    keep = (classes != mask_cls.shape[-1] - 1) & (scores > object_mask_threshold)
    scores, classes, masks = scores[keep], classes[keep], mask_pred[keep].sigmoid()
    num_queries, height, width = masks.shape
    if num_queries == 0:
        return torch.zeros(height, width, dtype=torch.int32, device=masks.device), []

    owner = (scores[:, None, None] * masks).argmax(0)
    inside = masks.gather(0, owner[None])[0] >= mask_threshold
    segment = torch.where(inside, owner, num_queries)  # num_queries stands for no segment
    # Copied to the host at once; float64 is exact for areas and scores alike.
    facts = torch.stack(
        [
            scores.double(),
            classes,
            (masks >= 0.5).flatten(1).sum(1),
            torch.bincount(owner.flatten(), minlength=num_queries),
            torch.bincount(segment.flatten(), minlength=num_queries + 1)[:-1],
        ]
    )
    segment_ids = [0] * (num_queries + 1)
    segments_info: list[dict[str, Any]] = []
    stuff_segments: dict[int, int] = {}
    for query, (score, category, mask_area, owned_area, area) in enumerate(facts.T.tolist()):
        if area == 0 or mask_area == 0 or owned_area / mask_area < overlap_threshold:
            continue
        category = int(category)
        is_thing = category in thing_ids
        if not is_thing and category in stuff_segments:
            segment_ids[query] = stuff_segments[category]
            continue
        segment_id = len(segments_info) + 1
        segment_ids[query] = segment_id
        segments_info.append(
            {"id": segment_id, "isthing": is_thing, "category_id": category, "score": score}
        )
        if not is_thing:
            stuff_segments[category] = segment_id
    lookup = torch.tensor(segment_ids, dtype=torch.int32, device=masks.device)
    return lookup[segment], segments_info


def instance_inference(
    mask_cls: Tensor,
    mask_pred: Tensor,
    *,
    max_detections: int,
    class_ids: Collection[int] | None = None,
) -> Instances:
    """Turn the best pairs of a query and a class into instances, which may overlap.

    Args:
        mask_cls: (Q, K+1) logits.
        mask_pred: (Q, H, W) logits.
        max_detections: how many pairs to take; there are Q * K at most.
        class_ids: of the pairs taken, keep only those with these classes; None keeps all.

    Returns:
        Instances of image size (H, W), by decreasing class probability: ``pred_masks`` (N, H, W)
        bool, ``pred_boxes`` around them, ``scores`` (N,), class probability times the mean mask
        probability inside the mask, and ``pred_classes`` (N,) int64.
    """
    probabilities = mask_cls.softmax(-1)[:, :-1]
    num_classes = probabilities.shape[1]
    scores, pairs = probabilities.flatten().topk(min(max_detections, probabilities.numel()))
    queries, classes = pairs // num_classes, pairs % num_classes
    if class_ids is not None:
        wanted = torch.tensor(sorted(class_ids), dtype=torch.int64, device=classes.device)
        keep = torch.isin(classes, wanted)
        scores, queries, classes = scores[keep], queries[keep], classes[keep]
    logits = mask_pred[queries]
    masks = logits > 0
    mask_scores = (logits.sigmoid() * masks).flatten(1).sum(1) / (masks.flatten(1).sum(1) + 1e-6)

    instances = Instances(tuple(mask_pred.shape[-2:]))
    instances.pred_masks = masks
    instances.pred_boxes = Boxes(masks_to_boxes(masks))
    instances.scores = scores * mask_scores
    instances.pred_classes = classes
    return instances


def masks_to_boxes(masks: Tensor) -> Tensor:
    """Compute tight boxes around masks.

    torchvision's function ends a box at the last pixel instead of one past it and fails on an empty
    mask; detectron2's ``BitMasks`` waits for the device several times per mask.

    Args:
        masks: (N, H, W) bool.

    Returns:
        (N, 4) float32: left, top, right, bottom in pixels, all 0 for an empty mask.
    """
    (left, right), (top, bottom) = _extent(masks.any(1)), _extent(masks.any(2))
    return torch.stack([left, top, right, bottom], dim=1).float()


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """(N, S) bool -> (N,) the first true position and (N,) one past the last; 0, 0 if none."""
    position = torch.arange(occupied.shape[1], device=occupied.device)
    end = (occupied * (position + 1)).amax(1)
    start = end - (occupied * (end[:, None] - position)).amax(1)
    return start, end
