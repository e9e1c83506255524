"""The pseudo-labels and boxes of target samples, as maps over a padded batch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from detectron2.structures import ImageList
from torch import Tensor
from torch.nn import functional as F


def batch_labels(
    target: Sequence[dict[str, Any]], images: ImageList, size: tuple[int, int]
) -> Tensor:
    """Stack the soft pseudo-labels of target samples.

    Args:
        target: samples of the mapper ``target_pseudo_labels``.
        images: theirs, padded to (H, W).
        size: h, w of the maps to return, which cover the padded images.

    Returns:
        (B, K, h, w) float32 on the images' device; 0 for all classes where there is no image.
    """
    (height, width), device = images.tensor.shape[-2:], images.tensor.device
    stacked = []
    for inputs in target:
        labels, stride = inputs["pseudo_label"].to(device), inputs["pseudo_label_stride"]
        rows, columns = -(-height // stride), -(-width // stride)
        padding = (0, columns - labels.shape[-1], 0, rows - labels.shape[-2])
        stacked.append(F.pad(labels, padding))
    labels = torch.stack(stacked)
    return labels if labels.shape[-2:] == size else F.interpolate(labels, size, mode="bilinear")


def outside_boxes(
    boxes: Sequence[tuple[int, int, int, int]], images: ImageList, size: tuple[int, int]
) -> Tensor:
    """Which pixels of maps lie outside a box in their image.

    Args:
        boxes: top, left, bottom and right border, in pixels of each image.
        images: padded to (H, W).
        size: h, w of the maps, which cover the padded images.

    Returns:
        (B, h, w) bool: whether the pixel's centre lies outside.
    """
    device = images.tensor.device
    edges = torch.tensor(boxes, device=device)
    inside = []
    for axis, (length, full) in enumerate(zip(size, images.tensor.shape[-2:], strict=True)):
        centres = (torch.arange(length, device=device) + 0.5) * (full / length)
        first, last = edges[:, axis, None], edges[:, axis + 2, None]
        inside.append((centres >= first) & (centres < last))
    return ~(inside[0][:, :, None] & inside[1][:, None, :])
