"""How much masks (run lengths, which are not decoded) or boxes overlap."""

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
        shares = ious(present, [b[j] for j in columns], of_first=True)
        common[np.ix_(rows, columns)] = np.rint(shares * mask_areas(present)[:, None])
    return common


def ious(
    a: Sequence[Rle] | np.ndarray, b: Sequence[Rle] | np.ndarray, *, of_first: bool = False
) -> np.ndarray:
    """Intersection over union of N with M masks of one size, or of N with M boxes.

    Args:
        a, b: run lengths, or (N, 4) and (M, 4) float64 boxes: left, top, width, height.
        of_first: divide by the area of the first one instead of by the union.

    Returns:
        (N, M) float64, 0 where the intersection is empty.
    """
    if not len(a) or not len(b):
        return np.zeros((len(a), len(b)))
    return mask_util.iou(a, b, [int(of_first)] * len(b))


def without_overlaps(masks: Sequence[Rle]) -> list[Rle | None]:
    """Take from each mask what earlier ones have; None if nothing is left."""
    if not masks or mask_util.area(mask_util.merge(list(masks))) == mask_areas(masks).sum():
        return [mask if mask_util.area(mask) else None for mask in masks]
    taken = np.zeros(masks[0]["size"], dtype=bool, order="F")
    parts = []
    for mask in masks:
        own = mask_util.decode([mask])[:, :, 0].astype(bool) & ~taken
        taken |= own
        parts.append(mask_util.encode(np.asfortranarray(own, np.uint8)) if own.any() else None)
    return parts


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
