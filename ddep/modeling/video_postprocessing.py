"""Instances of videos from class and mask logits."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from pycocotools import mask as coco_mask
from torch import Tensor

from ddep.modeling.mask_rows import Resize, blocks_of_rows, resized_size
from ddep.modeling.postprocessing import best_pairs


@torch.no_grad()
def video_instance_inference(
    mask_cls: Tensor,
    mask_pred: Tensor,
    resizes: Sequence[Resize] = (),
    *,
    max_detections: int,
) -> dict[str, Any]:
    """Turn the best pairs of a query and a class into instances, which may overlap.

    The inference of Mask2Former for videos (Cheng et al., 2021, arXiv 2112.10764): the score is the
    probability of the class, and a pixel is in the mask where its logit is positive. Masks at the
    size of the results exist for one frame at a time.

    Args:
        mask_cls: (Q, K+1) logits; the last class is no-object.
        mask_pred: (Q, T, h, w) logits.
        resizes: steps from (h, w) to the size (H, W) of the results, see
            :func:`ddep.modeling.mask_rows.blocks_of_rows`.
        max_detections: how many pairs to take; there are Q * K at most.

    Returns:
        ``image_size`` (H, W); of the N instances, by decreasing score, ``pred_scores``,
        ``pred_labels``, classes in [0, K), and ``pred_masks``, N lists of T masks in COCO's
        compressed run-length encoding.
    """
    scores, queries, classes = best_pairs(mask_cls, max_detections)
    # A query may be paired with several classes; its masks are made once.
    queries, query_of_pair = queries.unique(return_inverse=True)
    of_frames = [
        encode_masks(positive_masks(logits, resizes)) for logits in mask_pred[queries].unbind(1)
    ]
    of_queries = [list(frames) for frames in zip(*of_frames, strict=True)]
    return {
        "image_size": resized_size(mask_pred[0], resizes),
        "pred_scores": scores.tolist(),
        "pred_labels": classes.tolist(),
        "pred_masks": [of_queries[query] for query in query_of_pair.tolist()],
    }


def positive_masks(logits: Tensor, resizes: Sequence[Resize] = ()) -> Tensor:
    """Where resized logits are positive: (N, h, w) -> (N, H, W) bool."""
    masks = logits.new_empty(len(logits), *resized_size(logits, resizes), dtype=torch.bool)
    for rows, block in blocks_of_rows(logits, resizes):
        torch.gt(block, 0, out=masks[:, rows])
    return masks


def encode_masks(masks: Tensor) -> list[dict[str, Any]]:
    """Encode masks (N, H, W) bool: ``size`` [H, W] and ``counts``, a str that JSON can hold."""
    columns_first = np.asfortranarray(masks.permute(1, 2, 0).cpu().numpy().view(np.uint8))
    encoded = coco_mask.encode(columns_first)
    return [{**mask, "counts": mask["counts"].decode("ascii")} for mask in encoded]
