"""Semantic, panoptic and instance segmentation from class and mask logits.

This is the inference of MaskFormer (arXiv 2107.06278, section 3.4), which Mask2Former (arXiv
2112.01527) adopts, for one image. Shapes: Q queries, K classes, logits ``mask_cls`` (Q, K+1), whose
last class is no-object, and ``mask_pred`` (Q, h, w), both floating point. ``resizes`` bring the
masks to the size (H, W) of the result, see :func:`blocks_of_rows`. No gradients are kept.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor

from ddep.modeling.mask_rows import Resize, blocks_of_rows, resized_size


@torch.no_grad()
def semantic_inference(
    mask_cls: Tensor, mask_pred: Tensor, resizes: Sequence[Resize] = ()
) -> Tensor:
    """Compute class scores for every pixel.

    Args:
        mask_cls: (Q, K+1) logits.
        mask_pred: (Q, h, w) logits.
        resizes: steps from (h, w) to (H, W).

    Returns:
        (K, H, W): the sum over queries of class probability times mask probability.
    """
    class_probabilities = mask_cls.softmax(-1)[:, :-1].T
    size = resized_size(mask_pred, resizes)
    scores = mask_pred.new_empty(len(class_probabilities), *size)
    for rows, logits in blocks_of_rows(mask_pred, resizes):
        masks = logits.sigmoid().flatten(1)
        torch.mm(class_probabilities, masks, out=scores[:, rows].flatten(1))
    return scores


@torch.no_grad()
def panoptic_inference(
    mask_cls: Tensor,
    mask_pred: Tensor,
    resizes: Sequence[Resize] = (),
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
        mask_pred: (Q, h, w) logits.
        resizes: steps from (h, w) to (H, W).
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
    # The host waits for a GPU here, for the number of kept queries, and once more below.
    kept = ((classes != mask_cls.shape[-1] - 1) & (scores > object_mask_threshold)).nonzero()[:, 0]
    scores, classes, mask_pred = scores[kept], classes[kept], mask_pred[kept]
    num_queries, size = len(kept), resized_size(mask_pred, resizes)
    if num_queries == 0:
        return torch.zeros(size, dtype=torch.int32, device=mask_pred.device), []

    # Of each pixel: twice the query that it goes to, plus 1 if it is in a segment.
    codes = torch.empty(size, dtype=torch.int32, device=mask_pred.device)
    # Of each query: the pixels of its mask; of each code: its pixels.
    mask_areas = torch.zeros(num_queries, dtype=torch.int64, device=mask_pred.device)
    areas = mask_areas.new_zeros(2 * num_queries)
    for rows, logits in blocks_of_rows(mask_pred, resizes):
        masks = logits.sigmoid()
        mask_areas += (masks >= 0.5).sum((1, 2))
        owner = (scores[:, None, None] * masks).max(0, keepdim=True).indices
        code = (2 * owner + (masks.gather(0, owner) >= mask_threshold)).flatten()
        # torch.bincount would make the host wait.
        areas.scatter_add_(0, code, areas.new_ones(1).expand(len(code)))
        codes[rows] = code.view_as(codes[rows])
    # Copied to the host at once; float64 is exact for areas and scores alike.
    facts = torch.stack([scores.double(), classes, mask_areas, *areas.view(-1, 2).T], 1).tolist()
    segment_ids = [0] * (2 * num_queries)  # by code
    segments_info: list[dict[str, Any]] = []
    stuff_segments: dict[int, int] = {}
    for query, (score, category, mask_area, outside, area) in enumerate(facts):
        if area == 0 or mask_area == 0 or (outside + area) / mask_area < overlap_threshold:
            continue
        category = int(category)
        is_thing = category in thing_ids
        if not is_thing and category in stuff_segments:
            segment_ids[2 * query + 1] = stuff_segments[category]
            continue
        segment_id = len(segments_info) + 1
        segment_ids[2 * query + 1] = segment_id
        segments_info.append(
            {"id": segment_id, "isthing": is_thing, "category_id": category, "score": score}
        )
        if not is_thing:
            stuff_segments[category] = segment_id
    lookup = torch.tensor(segment_ids, dtype=torch.int32, device=codes.device)
    return lookup.index_select(0, codes.flatten()).view(size), segments_info


@torch.no_grad()
def instance_inference(
    mask_cls: Tensor,
    mask_pred: Tensor,
    resizes: Sequence[Resize] = (),
    *,
    max_detections: int,
    class_ids: Collection[int] | None = None,
) -> Instances:
    """Turn the best pairs of a query and a class into instances, which may overlap.

    Args:
        mask_cls: (Q, K+1) logits.
        mask_pred: (Q, h, w) logits.
        resizes: steps from (h, w) to (H, W).
        max_detections: how many pairs to take; there are Q * K at most.
        class_ids: of the pairs taken, keep only those with these classes; None keeps all.

    Returns:
        Instances of image size (H, W), by decreasing class probability: ``pred_masks`` (N, H, W)
        bool, ``pred_boxes`` around them, ``scores`` (N,), class probability times the mean mask
        probability inside the mask, and ``pred_classes`` (N,) int64.
    """
    scores, queries, classes = best_pairs(mask_cls, max_detections, class_ids)
    # A query may be paired with several classes; its mask is measured once.
    queries, query_of_pair = queries.unique(return_inverse=True)
    size = resized_size(mask_pred, resizes)
    masks = mask_pred.new_empty(len(queries), *size, dtype=torch.bool)
    totals, areas = mask_pred.new_zeros(2, len(queries))
    for rows, logits in blocks_of_rows(mask_pred[queries], resizes):
        inside = torch.gt(logits, 0, out=masks[:, rows])
        totals += (logits.sigmoid() * inside).sum((1, 2))
        areas += inside.sum((1, 2))
    mask_scores = totals / (areas + 1e-6)

    instances = Instances(size)
    instances.pred_masks = masks[query_of_pair]
    instances.pred_boxes = Boxes(masks_to_boxes(masks)[query_of_pair])
    instances.scores = scores * mask_scores[query_of_pair]
    instances.pred_classes = classes
    return instances


def best_pairs(
    mask_cls: Tensor, max_detections: int, class_ids: Collection[int] | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """Find the most probable pairs of a query and a class.

    Args:
        mask_cls, max_detections, class_ids: as for :func:`instance_inference`.

    Returns:
        Probability, query and class of each pair, (N,) each, by decreasing probability.
    """
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
    (left, right), (top, bottom) = extent(pixels.amax(1)), extent(pixels.amax(2))
    return torch.stack([left, top, right, bottom], dim=1).float()


def extent(occupied: Tensor) -> tuple[Tensor, Tensor]:
    """(..., S) of 0 and 1 -> (...) the first 1 and (...) one past the last; 0, 0 if none."""
    position = torch.arange(occupied.shape[-1], device=occupied.device)
    end = (occupied * (position + 1)).amax(-1)
    start = end - (occupied * (end[..., None] - position)).amax(-1)
    return start, end
