"""MOT17: videos of pedestrians with a box of each (arXiv 1603.00831).

Each video is there three times, with detections of three detectors, which are not used here: images
and labels are the same.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

from detectron2.structures import BoxMode

from ddep.data.datasets.declaration import DatasetDeclaration, declare
from ddep.data.datasets.label_kinds import TRACKING
from ddep.data.datasets.mot_files import MotSequence, check_once, parse, read_rows
from ddep.data.datasets.mot_sequences import (
    PARTS,
    PEDESTRIAN_COLOUR,
    WHOLE,
    Annotations,
    load_images,
    register_sequences,
    video_records,
)
from ddep.data.record import Record
from ddep.errors import UserError

DETECTORS = ("FRCNN", "SDP", "DPM")  # the first that is there is taken
TRAIN = ("02", "04", "05", "09", "10", "11", "13")
TEST = ("01", "03", "06", "07", "08", "12", "14")
PEDESTRIAN = {"id": 1, "name": "pedestrian", "isthing": 1, "color": PEDESTRIAN_COLOUR}
# Person on a vehicle, static person, distractor and reflection: finding one is neither right nor
# wrong. Finding one of the others (vehicles, occluders, crowds) is wrong.
DISTRACTORS = (2, 7, 8, 12)
_HIGHEST_CLASS = 13


def register_mot17(root: Path) -> None:
    """Register ``mot17_{train,train_half,val_half,test}`` below ``root`` and, with their frames as
    images, ``mot17_images_{train,train_half,val_half}``.

    The halves are those of each training video.
    """
    train, test = root / "MOT17" / "train", root / "MOT17" / "test"
    for name, part in PARTS.items():
        videos = partial(_load_train, train, part)
        register_sequences(f"mot17_{name}", videos, train, PEDESTRIAN, TRACKING, boxes_only=True)
        register_sequences(
            f"mot17_images_{name}",
            partial(load_images, videos),
            train,
            PEDESTRIAN,
            ("bbox",),
            boxes_only=True,
            evaluator_type="coco",
        )
    register_sequences(
        "mot17_test",
        partial(_load_test, test),
        test,
        PEDESTRIAN,
        TRACKING,
        boxes_only=True,
        labels_are_secret=True,
    )


def _load_train(folder: Path, part: tuple[int, int]) -> list[Record]:
    return video_records(_folders(folder, TRAIN), read_boxes, part)


def _load_test(folder: Path) -> list[Record]:
    return video_records(_folders(folder, TEST), None, WHOLE)


def _folders(parent: Path, numbers: Sequence[str]) -> list[Path]:
    folders = []
    for number in numbers:
        copies = [parent / f"MOT17-{number}-{detector}" for detector in DETECTORS]
        folders.append(next((copy for copy in copies if copy.is_dir()), copies[0]))
    return folders


def read_boxes(sequence: MotSequence) -> Annotations:
    """Read the boxes of all frames.

    Pedestrians that are marked as not to be considered, and other classes, become crowds with the
    key ``distractor``, see :func:`ddep.evaluation.tracking_frames.class_frames`.

    Raises:
        UserError: a line that is broken, or of an unknown class; a track twice in a frame.
    """
    annotations: Annotations = [[] for _ in sequence.frames]
    for row in read_rows(sequence, ",", 8):
        left, top, width, height = parse(row.where, row.values[:4], float)
        considered, kind = parse(row.where, row.values[4:6], int)
        if not 1 <= kind <= _HIGHEST_CLASS:
            raise UserError(f"{row.where} is of class {kind}; expected 1 to {_HIGHEST_CLASS}")
        check_once(row, annotations[row.frame])
        annotation = {
            "id": row.track,
            "category_id": 0,
            "iscrowd": 0,
            "bbox": [left - 1, top - 1, width, height],  # the first pixel is 1, 1 in the file
            "bbox_mode": BoxMode.XYWH_ABS,
            "area": width * height,
        }
        if kind != PEDESTRIAN["id"] or not considered:
            annotation |= {"iscrowd": 1, "distractor": kind in DISTRACTORS}
        annotations[row.frame].append(annotation)
    return annotations


declare(
    DatasetDeclaration(
        name="mot17",
        how_to_get={
            "mot17_*": "download MOT17.zip from motchallenge.net/data/MOT17 and unpack it as MOT17"
        },
        register=register_mot17,
    )
)
