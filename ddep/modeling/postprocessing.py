"""Semantic, panoptic and instance segmentation from class and mask logits.

This is the inference of MaskFormer (arXiv 2107.06278, section 3.4), which Mask2Former (arXiv
2112.01527) adopts, for one image. Shapes: Q queries, K classes, logits ``mask_cls`` (Q, K+1), whose
last class is no-object, and ``mask_pred`` (Q, H, W), both floating point. No gradients are kept.
"""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torch.nn import functional as F

# Pixels of all masks whose class scores are computed together: some megabytes.
PIXELS_AT_ONCE = 2**15


@torch.no_grad()
def semantic_inference(mask_cls: Tensor, mask_pred: Tensor) -> Tensor:
    """Compute class scores for every pixel.

    Args:
        mask_cls: (Q, K+1) logits.
        mask_pred: (Q, H, W) logits.

    Returns:
        (K, H, W): the sum over queries of class probability times mask probability.
    """
    class_probabilities = mask_cls.softmax(-1)[:, :-1].T
    logits = mask_pred.flatten(1)
    scores = logits.new_empty(len(class_probabilities), logits.shape[1])
    # Parts of the image, so that the mask probabilities of all pixels never exist at once.
    parts = zip(logits.split(PIXELS_AT_ONCE, 1), scores.split(PIXELS_AT_ONCE, 1), strict=True)
    for part, scores_of_part in parts:
        torch.mm(class_probabilities, part.sigmoid(), out=scores_of_part)
    return scores.unflatten(1, mask_pred.shape[-2:])


@torch.no_grad()
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
    scores, classes, counts = _classes_of_queries(mask_cls, object_mask_threshold)
    queries = counts.nonzero()[:, 0].tolist()
    scores, classes, num_queries = scores[counts], classes[counts], len(queries)
    height, width = mask_pred.shape[-2:]
    if num_queries == 0:
        return torch.zeros(height, width, dtype=torch.int32, device=mask_pred.device), []

    # One mask at a time, which stays in the cache.
    owner = torch.zeros(height, width, dtype=torch.int64, device=mask_pred.device)
    largest, probability = mask_pred.new_full((2, height, width), -1.0)  # of the owner
    mask_areas = []
    for index, query in enumerate(queries):
        mask = mask_pred[query].sigmoid()
        mask_areas.append((mask >= 0.5).count_nonzero())
        product = scores[index] * mask
        larger = product > largest
        owner.masked_fill_(larger, index)
        torch.where(larger, mask, probability, out=probability)
        torch.maximum(largest, product, out=largest)
    # num_queries stands for no segment.
    segment = owner.masked_fill(probability < mask_threshold, num_queries)
    # Copied to the host at once; float64 is exact for areas and scores alike.
    facts = torch.stack(
        [
            scores.double(),
            classes,
            torch.stack(mask_areas),
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
    lookup = torch.tensor(segment_ids, dtype=torch.int32, device=mask_pred.device)
    return lookup[segment], segments_info


@torch.no_grad()
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
    scores, queries, classes = _best_pairs(mask_cls, max_detections, class_ids)
    # A query may be paired with several classes; its mask is measured once.
    queries, query_of_pair = queries.unique(return_inverse=True)
    masks = mask_pred.new_empty(len(queries), *mask_pred.shape[-2:], dtype=torch.bool)
    totals, areas = mask_pred.new_empty(2, len(queries))
    for index, query in enumerate(queries.tolist()):
        logits = mask_pred[query]
        torch.gt(logits, 0, out=masks[index])
        inside = F.threshold(logits, 0.0, -math.inf).sigmoid_()
        totals[index] = inside.sum(-1).sum(-1)
        areas[index] = masks[index].count_nonzero()
    mask_scores = totals / (areas + 1e-6)

    instances = Instances(tuple(mask_pred.shape[-2:]))
    instances.pred_masks = masks[query_of_pair]
    instances.pred_boxes = Boxes(masks_to_boxes(masks)[query_of_pair])
    instances.scores = scores * mask_scores[query_of_pair]
    instances.pred_classes = classes
    return instances


def queries_in_use(
    mask_cls: Tensor,
    *,
    object_mask_threshold: float | None,
    max_detections: int | None,
) -> Tensor:
    """Find the queries whose masks influence a result.

    Panoptic and instance segmentation of these queries alone are those of all queries.

    Args:
        mask_cls: (Q, K+1) logits.
        object_mask_threshold: as for :func:`panoptic_inference`; None if that is not wanted.
        max_detections: as for :func:`instance_inference`; None if that is not wanted.

    Returns:
        (Q,) bool.
    """
    used = torch.zeros(len(mask_cls), dtype=torch.bool, device=mask_cls.device)
    if object_mask_threshold is not None:
        used |= _classes_of_queries(mask_cls, object_mask_threshold)[2]
    if max_detections is not None:
        # Pairs of all classes: without those of other classes, the best would be others.
        used[_best_pairs(mask_cls, max_detections, class_ids=None)[1]] = True
    return used


def _classes_of_queries(mask_cls: Tensor, threshold: float) -> tuple[Tensor, Tensor, Tensor]:
    """The largest probability of each query, its class, and whether it counts; each (Q,)."""
    scores, classes = mask_cls.softmax(-1).max(-1)
    return scores, classes, (classes != mask_cls.shape[-1] - 1) & (scores > threshold)


def _best_pairs(
    mask_cls: Tensor, max_detections: int, class_ids: Collection[int] | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Probability, query and class of each pair for :func:`instance_inference`; each (N,)."""
    probabilities = mask_cls.softmax(-1)[:, :-1]
    num_classes = probabilities.shape[1]
    scores, pairs = probabilities.flatten().topk(min(max_detections, probabilities.numel()))
    queries, classes = pairs // num_classes, pairs % num_classes
    if class_ids is not None:
        wanted = torch.tensor(sorted(class_ids), dtype=torch.int64, device=classes.device)
        keep = torch.isin(classes, wanted)
        scores, queries, classes = scores[keep], queries[keep], classes[keep]
    return scores, queries, classes


def masks_to_boxes(masks: Tensor) -> Tensor:
    """Compute tight boxes around masks.

    torchvision's function ends a box at the last pixel instead of one past it and fails on an empty
    mask; detectron2's ``BitMasks`` waits for the device several times per mask.

    Args:
        masks: (N, H, W) bool.

    Returns:
        (N, 4) float32: left, top, right, bottom in pixels, all 0 for an empty mask.
    """
    pixels = masks.view(torch.uint8)  # whose maximum is several times as fast as `any` of bools
    (left, right), (top, bottom) = _extent(pixels.amax(1)), _extent(pixels.amax(2))
    return torch.stack([left, top, right, bottom], dim=1).float()


def _extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """(N, S) of 0 and 1 -> (N,) the first 1 and (N,) one past the last; 0, 0 if none."""
    position = torch.arange(occupied.shape[1], device=occupied.device)
    end = (occupied * (position + 1)).amax(1)
    start = end - (occupied * (end[:, None] - position)).amax(1)
    return start, end
