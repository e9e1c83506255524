"""Instances and panoptic segments from what DETR predicts for one image (arXiv 2005.12872)."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any

import torch
from detectron2.structures import Boxes, Instances
from torch import Tensor
from torchvision.ops import box_convert

from ddep.modeling.mask_rows import Resize, blocks_of_rows, resized_size


def box_instances(logits: Tensor, boxes: Tensor, output_size: tuple[int, int]) -> Instances:
    """Make an instance of each query; see :meth:`Detr.forward`.

    Args:
        logits: (Q, K+1) float32; the last class is no-object.
        boxes: (Q, 4), cxcywh relative to the image.
        output_size: height and width of the result.
    """
    height, width = output_size
    absolute = Boxes(box_convert(boxes, "cxcywh", "xyxy"))
    absolute.scale(width, height)
    instances = Instances(output_size, pred_boxes=absolute)
    instances.scores, instances.pred_classes = logits.softmax(-1)[:, :-1].max(-1)
    return instances


def threshold_masks(mask_pred: Tensor, resizes: Sequence[Resize]) -> Tensor:
    """Resize logits (Q, h, w); (Q, H, W) bool, where the probability is above 0.5."""
    masks = mask_pred.new_empty(len(mask_pred), *resized_size(mask_pred, resizes), dtype=torch.bool)
    for rows, logits in blocks_of_rows(mask_pred, resizes):
        torch.gt(logits, 0, out=masks[:, rows])
    return masks


@torch.no_grad()
def detr_panoptic_inference(
    mask_cls: Tensor,
    mask_pred: Tensor,
    resizes: Sequence[Resize],
    output_size: tuple[int, int],
    *,
    thing_ids: Collection[int],
    score_threshold: float = 0.85,
    largest_dropped: int = 4,
) -> tuple[Tensor, list[dict[str, Any]]]:
    """Give each pixel to the query with the largest mask logit (DETR, section 4.4).

    As in DETR's own code, which its published results come from: of several queries of one class of
    stuff, only the first stays. A query with few pixels is dropped, and all pixels are given to
    those that stay, until no query has too few. Only an image without any query has pixels in no
    segment.

    Args:
        mask_cls: (Q, K+1) logits; the last class is no-object.
        mask_pred: (Q, h, w) logits.
        resizes: steps from (h, w) to the size at which pixels are given away.
        output_size: (H, W) of the result, which takes the nearest of these pixels.
        thing_ids: classes whose queries stay apart; the others are stuff.
        score_threshold: a query counts if the probability of its class is above this.
        largest_dropped: a query with at most so many pixels of the result is dropped.

    Returns:
        (H, W) int32 with segment ids from 1, 0 where there is none; and per segment ``id``,
        ``isthing``, ``category_id``, the class in [0, K), and ``score``, its probability.
    """
    scores, classes = mask_cls.softmax(-1).max(-1)
    is_kept = (classes != mask_cls.shape[-1] - 1) & (scores > score_threshold)
    kept = is_kept.nonzero()[:, 0]
    first = _first_of_stuff(classes[kept].tolist(), thing_ids)
    # Before the first round, pixels of all queries of a class of stuff count for its first query.
    merged = torch.tensor(first, dtype=torch.int64, device=kept.device)
    while len(kept):
        owners = merged[_owners(mask_pred[kept], resizes, output_size)]
        areas = torch.bincount(owners.flatten(), minlength=len(kept))
        large = areas > largest_dropped
        if large.all():
            segments = [
                {"id": number, "isthing": cls in thing_ids, "category_id": cls, "score": score}
                for number, (cls, score) in enumerate(
                    zip(classes[kept].tolist(), scores[kept].tolist(), strict=True), start=1
                )
            ]
            return (owners + 1).int(), segments
        kept = kept[large]
        merged = torch.arange(len(kept), device=kept.device)
    return torch.zeros(output_size, dtype=torch.int32, device=mask_pred.device), []


def _first_of_stuff(classes: Sequence[int], thing_ids: Collection[int]) -> list[int]:
    """For each query, the position of the first one of the same class of stuff, or its own."""
    return [
        position if cls in thing_ids else classes.index(cls) for position, cls in enumerate(classes)
    ]


def _owners(masks: Tensor, resizes: Sequence[Resize], output_size: tuple[int, int]) -> Tensor:
    """(N, h, w) logits, N > 0 -> (H, W) int64, the mask with the largest logit at each pixel."""
    size = resized_size(masks, resizes)
    owners = torch.empty(size, dtype=torch.int64, device=masks.device)
    for rows, logits in blocks_of_rows(masks, resizes):
        owners[rows] = logits.argmax(0)
    rows, columns = (
        # The pixel in which the centre lies, as in Pillow.
        ((torch.arange(end, device=masks.device) + 0.5).double() * start / end).long()
        for start, end in zip(size, output_size, strict=True)
    )
    return owners[rows[:, None], columns]
