"""From a video's annotations and predicted tracks to what tracking metrics compare.

Predictions that annotators left open are taken out, by TrackEval's rules for MOTS and MOT17.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pycocotools.mask as mask_util
from scipy.optimize import linear_sum_assignment

from ddep.data.record import Record
from ddep.evaluation.mask_overlaps import ious, without_overlaps
from ddep.evaluation.tracking_metrics import Frame
from ddep.evaluation.video_tracks import Rle, VideoTrack, to_rle

# Predicted tracks with a lower score are left out; TrackFormer's threshold (arXiv 2101.02702).
SCORE_THRESHOLD = 0.4
_THRESHOLD = 0.5  # of the IoU that matches, and of the share inside a region to ignore
_EPSILON = np.finfo(np.float64).eps
# For each frame, the shapes by track: run lengths, or boxes (left, top, width, height).
Shapes = list[dict[int, Any]]


def disjoint_masks(tracks: Sequence[VideoTrack]) -> Shapes:
    """The masks of each frame. Where tracks overlap, that of the highest score has the pixels.

    Args:
        tracks: of one video; their positions are the ids.
    """
    order = sorted(range(len(tracks)), key=lambda i: -tracks[i].score)
    frames = []
    for masks in zip(*(tracks[i].masks for i in order), strict=True):
        seen = [(i, mask) for i, mask in zip(order, masks, strict=True) if mask]
        parts = without_overlaps([mask for _, mask in seen])
        frames.append({i: part for (i, _), part in zip(seen, parts, strict=True) if part})
    return frames


def boxes_of(tracks: Sequence[VideoTrack], boxes: Sequence[Sequence[Any]] | None) -> Shapes:
    """The boxes of each frame.

    Args:
        tracks: of one video; their positions are the ids.
        boxes: for each track and frame (left, top, width, height), None where it is absent; None
            takes the masks' boxes.
    """
    if boxes is None:
        boxes = [[_box(mask) for mask in track.masks] for track in tracks]
    return [
        {i: box for i, box in enumerate(frame) if box is not None}
        for frame in zip(*boxes, strict=True)
    ]


def _box(mask: Rle | None) -> Sequence[float] | None:
    return mask_util.toBbox(mask).tolist() if mask and mask_util.area(mask) else None


def class_frames(
    record: Record, category: int, found: Shapes, *, are_boxes: bool = False
) -> list[Frame]:
    """The true and the predicted objects of a class, frame by frame.

    Crowds are no objects. A predicted object is left out if most of it is in a crowd's mask and no
    true object matches it (MOTS' regions to ignore). Crowds with a key ``distractor`` are other
    things that look alike: predicted objects that match one whose value is True are left out
    (MOT17's distractor classes); those that match another one count as wrong.

    Args:
        record: of the video.
        category: contiguous.
        found: the predicted objects of the class.
        are_boxes: whether boxes are compared, not masks.
    """

    frames = []
    for present, predicted in zip(record["annotations"], found, strict=True):
        of_class = [a for a in present if a["category_id"] == category]
        objects = [a for a in of_class if not a.get("iscrowd", 0)]
        lookalikes = [a for a in of_class if a.get("iscrowd", 0) and "distractor" in a]
        regions = [a for a in of_class if a.get("iscrowd", 0) and "distractor" not in a]
        shapes = _pack(list(predicted.values()), are_boxes)
        truth = _shapes(record, [*objects, *lookalikes], are_boxes)
        similarity = ious(_pack(truth, are_boxes), shapes)
        keep = ~_left_out(
            similarity,
            np.array([a.get("distractor", False) for a in (*objects, *lookalikes)], dtype=bool),
            _inside(shapes, _shapes(record, regions, are_boxes), are_boxes),
        )
        frames.append(
            Frame(
                np.array([a["id"] for a in objects], dtype=np.int64),
                np.array(list(predicted), dtype=np.int64)[keep],
                similarity[: len(objects), keep],
            )
        )
    return frames


def _shapes(record: Record, annotations: Sequence[Mapping[str, Any]], are_boxes: bool) -> list[Any]:
    if are_boxes:
        return [annotation["bbox"] for annotation in annotations]
    size = record["height"], record["width"]
    return [to_rle(annotation["segmentation"], *size) for annotation in annotations]


def _pack(shapes: list[Any], are_boxes: bool) -> list[Rle] | np.ndarray:
    """As pycocotools takes them."""
    return np.reshape(shapes, (-1, 4)).astype(np.float64) if are_boxes else shapes


def _inside(shapes: list[Rle] | np.ndarray, regions: list[Any], are_boxes: bool) -> np.ndarray:
    """Whether more than half of each shape is in the regions to ignore: of masks, in all of them
    together; of boxes, in one of them. (D,) bool."""
    if not are_boxes and regions:
        regions = [mask_util.merge(regions)]
    shares = ious(shapes, _pack(regions, are_boxes), of_first=True)
    return (shares > _THRESHOLD + _EPSILON).any(axis=1)


def _left_out(similarity: np.ndarray, distractor: np.ndarray, inside: np.ndarray) -> np.ndarray:
    """Which predicted objects neither count as right nor as wrong.

    Args:
        similarity: (G, D) float64, of annotated and predicted objects.
        distractor: (G,) bool, whether to leave out what matches.
        inside: (D,) bool, whether a prediction is in a region to ignore.

    Returns:
        (D,) bool.
    """
    scores = np.where(similarity < _THRESHOLD - _EPSILON, 0, similarity)
    rows, columns = linear_sum_assignment(scores, maximize=True)
    close = scores[rows, columns] > _EPSILON
    left_out = inside.copy()
    left_out[columns[close]] = distractor[rows[close]]
    return left_out
