"""Segmentations of a batch in tensor operations alone, whose shapes do not depend on the values.

They are those of :mod:`ddep.modeling.postprocessing`, of which the functions here are the forms
that a graph can hold: no query is left out, so they take more memory. Shapes: B images, Q queries,
K classes, logits ``mask_cls`` (B, Q, K+1) and ``mask_pred`` (B, Q, H, W).
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor

from ddep.modeling.postprocessing import extent


def batched_semantic(mask_cls: Tensor, mask_pred: Tensor) -> Tensor:
    """The class of each pixel, (B, H, W) int64; see :func:`~.postprocessing.semantic_inference`."""
    probabilities = mask_cls.softmax(-1)[..., :-1]
    scores = probabilities.transpose(1, 2) @ mask_pred.sigmoid().flatten(2)
    return _like_pixels(scores.argmax(1), mask_pred)


def batched_panoptic(
    mask_cls: Tensor,
    mask_pred: Tensor,
    *,
    thing_ids: Collection[int],
    object_mask_threshold: float,
    overlap_threshold: float,
    mask_threshold: float,
) -> dict[str, Tensor]:
    """Segments that do not overlap.

    Args:
        mask_cls, mask_pred: logits.
        thing_ids, object_mask_threshold, overlap_threshold, mask_threshold: as for
            :func:`ddep.modeling.postprocessing.panoptic_inference`.

    Returns:
        ``panoptic`` (B, H, W) int32, segments from 1, 0 where there is none. A segment is of the
        query that begins it: ``segment_ids`` (B, Q) int32, 0 for queries that begin none;
        ``segment_classes`` (B, Q) int64 and ``segment_scores`` (B, Q).
    """
    num_queries, num_classes = mask_cls.shape[1], mask_cls.shape[2] - 1
    scores, classes = mask_cls.softmax(-1).max(-1)
    counts = (classes != num_classes) & (scores > object_mask_threshold)
    probabilities = mask_pred.sigmoid().flatten(2)
    products = torch.where(counts, scores, -1.0)[..., None] * probabilities
    owner = products.argmax(1)  # (B, H * W)
    probability = probabilities.gather(1, owner[:, None])[:, 0]
    owned = probability >= mask_threshold

    none = torch.zeros_like(classes)
    owned_areas = none.scatter_add(1, owner, torch.ones_like(owner))
    areas = none.scatter_add(1, owner, owned.long())
    mask_areas = (probabilities >= 0.5).sum(-1)
    overlaps = owned_areas.double() / mask_areas.double()
    kept = counts & (areas > 0) & (mask_areas > 0) & (overlaps >= overlap_threshold)

    # Stuff of one class is one segment, which its first query begins.
    query = torch.arange(num_queries, device=mask_cls.device)
    is_thing = _are_in(thing_ids, num_classes + 1, mask_cls.device)
    joins = kept[:, None] & (classes[:, None] == classes[..., None])
    first = torch.where(joins, query, num_queries).amin(-1).clamp(max=num_queries - 1)
    first = torch.where(is_thing[classes], query, first)
    begins = kept & (first == query)
    numbers = begins.cumsum(1)
    ids = numbers.gather(1, first) * kept
    panoptic = ids.gather(1, owner) * owned
    return {
        "panoptic": _like_pixels(panoptic, mask_pred).int(),
        "segment_ids": (numbers * begins).int(),
        "segment_classes": classes,
        "segment_scores": scores,
    }


def batched_instances(
    mask_cls: Tensor,
    mask_pred: Tensor,
    *,
    max_detections: int,
    class_ids: Collection[int] | None,
) -> dict[str, Tensor]:
    """The best pairs of a query and a class as instances, which may overlap.

    Args:
        mask_cls, mask_pred: logits.
        max_detections, class_ids: as for :func:`ddep.modeling.postprocessing.instance_inference`.

    Returns:
        N instances of each image, by decreasing class probability: ``masks`` (B, N, H, W) bool,
        ``boxes`` (B, N, 4), ``scores`` (B, N), 0 for pairs of other classes than ``class_ids``,
        and ``classes`` (B, N) int64.
    """
    probabilities = mask_cls.softmax(-1)[..., :-1]
    num_queries, num_classes = probabilities.shape[1:]
    scores, pairs = probabilities.flatten(1).topk(min(max_detections, num_queries * num_classes))
    queries, classes = pairs // num_classes, pairs % num_classes
    if class_ids is not None:
        scores = scores * _are_in(class_ids, num_classes, scores.device)[classes]
    masks = mask_pred > 0
    areas = masks.flatten(2).sum(-1)
    inside = (mask_pred.sigmoid() * masks).flatten(2).sum(-1) / (areas + 1e-6)
    boxes = _boxes(masks)
    image = torch.arange(mask_pred.shape[0], device=queries.device)[:, None]
    return {
        "masks": masks[image, queries],
        "boxes": boxes[image, queries],
        "scores": scores * inside.gather(1, queries),
        "classes": classes,
    }


def _boxes(masks: Tensor) -> Tensor:
    """Boxes around masks (B, Q, H, W): (B, Q, 4) float32, zeros around an empty one."""
    (left, right), (top, bottom) = extent(masks.any(2)), extent(masks.any(3))
    return torch.stack([left, top, right, bottom], dim=-1).float()


def _are_in(class_ids: Collection[int], num_classes: int, device: torch.device) -> Tensor:
    """(num_classes,) bool: whether each class is among ``class_ids``."""
    return torch.tensor([number in class_ids for number in range(num_classes)], device=device)


def _like_pixels(values: Tensor, mask_pred: Tensor) -> Tensor:
    """(B, H * W) -> (B, H, W)."""
    return values.unflatten(1, (mask_pred.shape[-2], mask_pred.shape[-1]))
