"""The objects of a video as sequences of masks: true ones from records, and predicted ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as mask_util

from ddep.data.record import Record
from ddep.data.records import load_records
from ddep.errors import UserError

# Run lengths in COCO's compressed format: ``size`` [H, W] and ``counts``.
Rle = Mapping[str, Any]


@dataclass(frozen=True)
class VideoTrack:
    """An object through a video.

    Attributes:
        category: its class, contiguous.
        masks: one for each frame of the video, None where the object is absent.
        area: mean number of pixels over the frames where it is not empty; 0 if it always is.
        iscrowd: whether it stands for many objects; true tracks only.
        score: the higher, the more certain; predicted tracks only.
    """

    category: int
    masks: Sequence[Rle | None]
    area: float
    iscrowd: bool = False
    score: float = 0.0


def check_video_records(dataset_name: str) -> None:
    """Raise :class:`UserError` if the records of a data set of videos cannot be evaluated.

    A damaged annotation file is found here, not after training.
    """
    (records,) = load_records("DATASETS.TEST", [dataset_name], filter_empty=False)
    seen: set[int] = set()
    for record in records:
        if record["video_id"] in seen:
            raise UserError(
                f"{dataset_name} has two videos of id {record['video_id']}; expected a different "
                "id for each; correct its annotation file"
            )
        seen.add(record["video_id"])
        if "annotations" in record:
            true_tracks(record)


def true_tracks(record: Record) -> list[VideoTrack]:
    """The annotated objects of a video.

    Args:
        record: of the video, with ``annotations``, one list for each frame.

    Returns:
        The tracks by ascending id. Their areas are the means of the annotations' ``area``.

    Raises:
        UserError: a mask that is not of the video's size, a track twice in a frame, or one of two
            classes.
    """
    tracks: dict[int, list[Mapping[str, Any] | None]] = {}
    for frame, present in enumerate(record["annotations"]):
        for annotation in present:
            track = tracks.setdefault(annotation["id"], [None] * record["length"])
            if track[frame] is not None:
                raise UserError(
                    f"{record['file_names'][frame]} has track {annotation['id']} twice; expected "
                    "each track once in a frame; correct the annotation file"
                )
            track[frame] = annotation
    return [_true_track(record, number, tracks[number]) for number in sorted(tracks)]


def _true_track(
    record: Record, number: int, annotations: Sequence[Mapping[str, Any] | None]
) -> VideoTrack:
    size = (record["height"], record["width"])
    present = [annotation for annotation in annotations if annotation]
    categories = {annotation["category_id"] for annotation in present}
    if len(categories) > 1:
        raise UserError(
            f"track {number} of the video of {record['file_name']} has the classes "
            f"{sorted(categories)}; expected one; correct the annotation file"
        )
    masks = [annotation and to_rle(annotation["segmentation"], *size) for annotation in annotations]
    for path, mask in zip(record["file_names"], masks, strict=True):
        if mask and tuple(mask["size"]) != size:
            raise UserError(
                f"the mask of track {number} in {path} is {_wide_by_high(mask['size'])}; expected "
                f"{_wide_by_high(size)}, as the video; correct the annotation file"
            )
    return VideoTrack(
        category=categories.pop(),
        masks=masks,
        area=mean_area([annotation["area"] for annotation in present]),
        iscrowd=any(annotation.get("iscrowd", 0) for annotation in present),
    )


def predicted_tracks(
    dataset_name: str, record: Record, output: Mapping[str, Any], num_classes: int
) -> list[VideoTrack]:
    """A model's tracks of a video.

    Args:
        dataset_name: for errors.
        record: of the video: ``file_name``, ``height``, ``width``, ``length``.
        output: ``pred_scores``, ``pred_labels`` (contiguous) and ``pred_masks``, for each track a
            list of run lengths or None, one for each frame; without the masks there are none.
        num_classes: of the data set.

    Raises:
        UserError: a class that the data set does not have, or masks of another size than the
            video's.
    """
    size = (record["height"], record["width"])
    tracks = []
    absent = [[None] * record["length"]] * len(output["pred_scores"])
    for score, label, masks in zip(
        output["pred_scores"],
        output["pred_labels"],
        output.get("pred_masks", absent),
        strict=True,
    ):
        if not 0 <= label < num_classes:
            raise UserError(
                f"the model predicts class {label}, which {dataset_name} does not have; "
                "MODEL.SEM_SEG_HEAD.NUM_CLASSES must be the data set's"
            )
        if len(masks) != record["length"]:
            raise ValueError(f"a track has {len(masks)} masks, the video {record['length']} frames")
        for mask in masks:
            if mask and tuple(mask["size"]) != size:
                raise UserError(
                    f"the model's masks of the video of {record['file_name']} are "
                    f"{_wide_by_high(mask['size'])}; expected {_wide_by_high(size)}, as its "
                    "annotations say; are they of other frames?"
                )
        area = mean_area(mask_areas(masks).tolist())
        tracks.append(VideoTrack(int(label), masks, area, score=float(score)))
    return tracks


def to_rle(segmentation: Any, height: int, width: int) -> Rle:
    """Compressed run lengths of polygons or of run lengths of either kind."""
    if isinstance(segmentation, list):
        return mask_util.merge(mask_util.frPyObjects(segmentation, height, width))
    if isinstance(segmentation["counts"], list):
        return mask_util.frPyObjects(segmentation, height, width)
    return segmentation


def mean_area(areas: Sequence[float]) -> float:
    """The mean of those that are not 0; 0 if all are."""
    return float(np.mean([area for area in areas if area] or [0]))


def mask_areas(masks: Sequence[Rle | None]) -> np.ndarray:
    """The numbers of pixels, (N,) float64; 0 for None."""
    return np.array([mask_util.area(mask) if mask else 0 for mask in masks], dtype=np.float64)


def _wide_by_high(size: Sequence[int]) -> str:
    return f"{size[1]}x{size[0]}"
