"""How much masks overlap, from run lengths, without decoding them."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pycocotools.mask as mask_util

from ddep.evaluation.video_tracks import Rle, mask_areas


def common_pixels(a: Sequence[Rle | None], b: Sequence[Rle | None]) -> np.ndarray:
    """How many pixels each of N masks has in common with each of M.

    Args:
        a, b: N and M masks of one size; None is empty.

    Returns:
        (N, M) float64, whole numbers.
    """
    common = np.zeros((len(a), len(b)))
    rows, columns = ([i for i, mask in enumerate(masks) if mask] for masks in (a, b))
    if rows and columns:
        present = [a[i] for i in rows]
        # For crowds, COCO's IoU is the share of the first mask that the second covers.
        shares = mask_util.iou(present, [b[j] for j in columns], [1] * len(columns))
        common[np.ix_(rows, columns)] = np.rint(shares * mask_areas(present)[:, None])
    return common


def video_ious(a: Sequence[Sequence[Rle | None]], b: Sequence[Sequence[Rle | None]]) -> np.ndarray:
    """IoU of sequences of masks: pixels in common over pixels of either, both summed over frames.

    Args:
        a, b: N and M tracks, each with a mask for each of the T frames; None is empty.

    Returns:
        (N, M) float64, 0 where both are empty.
    """
    common = np.zeros((len(a), len(b)))
    if not common.size:
        return common
    for frame_a, frame_b in zip(zip(*a, strict=True), zip(*b, strict=True), strict=True):
        common += common_pixels(frame_a, frame_b)
    area_a, area_b = (np.array([mask_areas(track).sum() for track in x]) for x in (a, b))
    union = area_a[:, None] + area_b - common
    return np.divide(common, union, out=np.zeros_like(common), where=union > 0)
