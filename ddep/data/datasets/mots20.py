"""MOTS20: videos of pedestrians with a mask of each (arXiv 1902.03604)."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pycocotools.mask as mask_util
from detectron2.structures import BoxMode

from ddep.data.datasets.declaration import DatasetDeclaration, declare
from ddep.data.datasets.label_kinds import INSTANCE, TRACKING, VIDEO
from ddep.data.datasets.mot_files import MotSequence, Row, check_once, parse, read_rows
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

TRAIN = ("MOTS20-02", "MOTS20-05", "MOTS20-09", "MOTS20-11")
TEST = ("MOTS20-01", "MOTS20-06", "MOTS20-07", "MOTS20-12")
PEDESTRIAN = {"id": 2, "name": "pedestrian", "isthing": 1, "color": PEDESTRIAN_COLOUR}
_CAR, _IGNORE = 1, 10


def register_mots20(root: Path) -> None:
    """Register ``mots20_{train,train_half,val_half,test}`` below ``root`` and, with their frames as
    images, ``mots20_images_{train,train_half,val_half}``.

    The halves are those of each training video.
    """
    train, test = root / "MOTS20" / "train", root / "MOTS20" / "test"
    labels = (*VIDEO, *TRACKING)
    for name, part in PARTS.items():
        videos = partial(_load_train, train, part)
        register_sequences(f"mots20_{name}", videos, train, PEDESTRIAN, labels)
        register_sequences(
            f"mots20_images_{name}",
            partial(load_images, videos),
            train,
            PEDESTRIAN,
            INSTANCE,
            evaluator_type="coco",
        )
    register_sequences(
        "mots20_test", partial(_load_test, test), test, PEDESTRIAN, labels, labels_are_secret=True
    )


def _load_train(folder: Path, part: tuple[int, int]) -> list[Record]:
    return video_records([folder / name for name in TRAIN], read_masks, part)


def _load_test(folder: Path) -> list[Record]:
    return video_records([folder / name for name in TEST], None, WHOLE)


def read_masks(sequence: MotSequence) -> Annotations:
    """Read the masks of all frames; regions to ignore become crowds.

    Raises:
        UserError: a line that is broken, of a class other than car (left out), pedestrian and
            region to ignore, or of another size than the frames; a track twice in a frame.
    """
    annotations: Annotations = [[] for _ in sequence.frames]
    for row in read_rows(sequence, " ", 6):
        kind, height, width = parse(row.where, row.values[:3], int)
        if kind not in (_CAR, PEDESTRIAN["id"], _IGNORE):
            raise UserError(
                f"{row.where} is of class {kind}; expected {_CAR} (car), {PEDESTRIAN['id']} "
                f"(pedestrian) or {_IGNORE} (region to ignore)"
            )
        if (height, width) != (sequence.height, sequence.width):
            raise UserError(
                f"{row.where} has a mask of {width}x{height}; expected "
                f"{sequence.width}x{sequence.height}, as seqinfo.ini says"
            )
        if kind == _CAR:
            continue
        mask = {"size": [height, width], "counts": row.values[3]}
        present = annotations[row.frame]
        if kind == _IGNORE:
            # Several in a frame have one id, and are one.
            earlier = [other for other in present if other["id"] == row.track]
            mask = mask_util.merge([mask, *(other["segmentation"] for other in earlier)])
            present[:] = [other for other in present if other["id"] != row.track]
        check_once(row, present)
        present.append(_annotation(row, mask, kind == _IGNORE))
    return annotations


def _annotation(row: Row, mask: dict[str, Any], iscrowd: bool) -> dict[str, Any]:
    box = mask_util.toBbox(mask).tolist()
    if box[0] + box[2] > mask["size"][1]:  # more runs than pixels
        raise UserError(
            f"{row.where} has run lengths {row.values[3]!r:.40} of more than "
            f"{mask['size'][1]}x{mask['size'][0]} pixels; unpack the file again"
        )
    return {
        "id": row.track,
        "category_id": 0,
        "iscrowd": int(iscrowd),
        "bbox": box,
        "bbox_mode": BoxMode.XYWH_ABS,
        "segmentation": mask,
        "area": float(mask_util.area(mask)),
    }


declare(
    DatasetDeclaration(
        name="mots20",
        how_to_get={
            "mots20_*": "download MOTS.zip from motchallenge.net/data/MOTS and unpack it as MOTS20"
        },
        register=register_mots20,
    )
)
