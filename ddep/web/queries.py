"""Which query of a mask classification model stands for a segment, and what it says."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ddep.modeling.meta_arch.mask_former import MaskLogits


@torch.no_grad()
def query_of(logits: MaskLogits, mask: np.ndarray, class_id: int) -> int:
    """The query that a segment comes from: its class, and its mask, fit best.

    A segment does not say where it comes from, and stuff may come from several queries. Each query
    is given its probability of the class times the IoU (Jaccard index, of probabilities) of its
    mask with the segment's.

    Args:
        logits: of the image.
        mask: (H, W) bool, the segment's pixels, at any size.
        class_id: the segment's class.
    """
    probabilities = _masks_of_image(logits).sigmoid()
    pixels = torch.from_numpy(mask).to(probabilities)[None, None]
    pixels = F.interpolate(pixels, size=probabilities.shape[-2:], mode="area")[0]
    shared = torch.minimum(probabilities, pixels).sum((1, 2))
    union = torch.maximum(probabilities, pixels).sum((1, 2))
    of_class = logits.mask_cls.softmax(-1)[:, class_id].to(shared)
    return int((of_class * shared / union).argmax())


def class_scores(logits: MaskLogits, query: int) -> Tensor:
    """(K+1,) float32 on the CPU: probabilities of a query's classes; the last is no-object."""
    return logits.mask_cls[query].float().softmax(-1).cpu()


def _masks_of_image(logits: MaskLogits) -> Tensor:
    """(Q, h, w) mask logits without those of padding, at the network's resolution."""
    height, width = (
        max(1, round(cells * side / padded))
        for cells, side, padded in zip(
            logits.mask_pred.shape[-2:], logits.image_size, logits.padded_size, strict=True
        )
    )
    return logits.mask_pred[:, :height, :width]
