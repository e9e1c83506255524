"""Many labelled images in one picture."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from detectron2.data import Metadata
from detectron2.data import transforms as T
from detectron2.structures import BoxMode
from PIL import Image, ImageDraw, ImageFont

from ddep.data.augmentation import transform_labels
from ddep.data.image_reader import read_image, read_labels, read_panoptic
from ddep.data.mappers.instance import segmentation_to_mask
from ddep.drawing.classes import draw_classes
from ddep.drawing.segments import draw_annotations, draw_panoptic, draw_semantic
from ddep.drawing.tracks import draw_tracks, reduced, strip, strip_frames

MAX_PICTURES = 24
_COLUMNS = 4
# Longer side of a picture, height of the line below it, and space between two, in pixels.
_SIDE, _LINE, _SPACE = 480, 20, 8


def draw_contact_sheet(records: Sequence[dict[str, Any]], metadata: Metadata) -> np.ndarray:
    """Draw the labels of images over them, with their names below.

    Args:
        records: images in detectron2's standard data set format, whose labels are good.
        metadata: names and colours of the classes.

    Returns:
        (H, W, 3) uint8, RGB, four pictures a row.
    """
    pictures = [Image.fromarray(draw_record(record, metadata)) for record in records]
    for picture in pictures:
        picture.thumbnail((_SIDE, _SIDE))
    rows = [pictures[i : i + _COLUMNS] for i in range(0, len(pictures), _COLUMNS)]
    heights = [max(picture.height for picture in row) + _LINE for row in rows]
    sheet = Image.new("RGB", ((_SIDE + _SPACE) * len(rows[0]), sum(heights)), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default()
    names = map(_name, records)
    top = 0
    for row, height in zip(rows, heights, strict=True):
        for column, picture in enumerate(row):
            left = column * (_SIDE + _SPACE)
            sheet.paste(picture, (left, top))
            draw.text((left, top + picture.height + 2), next(names), "black", font)
        top += height
    return np.asarray(sheet)


def _name(record: dict[str, Any]) -> str:
    """The image's file name; of a video, with the folder of its frames, which have equal names."""
    folder, name = os.path.split(record["file_name"])
    return f"{os.path.basename(folder)}/{name}" if "file_names" in record else name


def draw_record(record: dict[str, Any], metadata: Metadata) -> np.ndarray:
    """Draw an image with its panoptic labels or, without these, its instances or semantic labels,
    or the classes of the whole image beside it; of a video, some frames with its objects.

    The longer side is reduced to 480 pixels before drawing, so that names can be read.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    if "file_names" in record:
        return _draw_video(record, metadata)
    image = read_image(record["file_name"], "RGB")
    if "classes" in record:
        return draw_classes(image, [metadata.classes[number] for number in record["classes"]])
    resize = reduced(image)
    image = resize.apply_image(image)
    if "pan_seg_file_name" in record:
        ids = transform_labels(resize, read_panoptic(record["pan_seg_file_name"]), fill=0)
        visible = set(np.unique(ids).tolist())
        things = metadata.get("thing_dataset_id_to_contiguous_id", {}).values()
        segments = [
            # detectron2's records of Cityscapes do not say what is a thing.
            {"isthing": segment["category_id"] in things, **segment}
            for segment in record["segments_info"]
            if segment["id"] in visible
        ]
        return draw_panoptic(image, torch.from_numpy(ids), segments, metadata)
    if "annotations" in record:
        moved = [_move(annotation, resize) for annotation in record["annotations"]]
        return draw_annotations(image, moved, metadata)
    if "sem_seg_file_name" in record:
        labels = transform_labels(resize, read_labels(record["sem_seg_file_name"]), fill=0)
        return draw_semantic(image, torch.from_numpy(labels), metadata)
    return image


def _draw_video(record: dict[str, Any], metadata: Metadata) -> np.ndarray:
    pictures = []
    for frame in strip_frames(len(record["file_names"])):
        image = read_image(record["file_names"][frame], "RGB")
        resize = reduced(image)
        annotations = record["annotations"][frame] if "annotations" in record else []
        pictures.append(
            draw_tracks(
                resize.apply_image(image),
                [_moved_mask(annotation, resize) for annotation in annotations],
                [annotation["id"] for annotation in annotations],
                [metadata.thing_classes[each["category_id"]] for each in annotations],
                metadata,
            )
        )
    return strip(pictures)


def _move(annotation: dict[str, Any], resize: T.ResizeTransform) -> dict[str, Any]:
    return {
        **annotation,
        "bbox": _moved_box(annotation, resize),
        "bbox_mode": BoxMode.XYXY_ABS,
        "segmentation": _moved_mask(annotation, resize),
    }


def _moved_box(annotation: dict[str, Any], resize: T.ResizeTransform) -> list[float]:
    """Left, top, right and bottom at the new size."""
    box = BoxMode.convert(annotation["bbox"], annotation["bbox_mode"], BoxMode.XYXY_ABS)
    return resize.apply_box(np.array([box]))[0].tolist()


def _moved_mask(annotation: dict[str, Any], resize: T.ResizeTransform) -> np.ndarray:
    """(H, W) bool, at the new size; without a mask, the box."""
    if "segmentation" not in annotation:
        left, top, right, bottom = (max(0, round(v)) for v in _moved_box(annotation, resize))
        mask = np.zeros((resize.new_h, resize.new_w), dtype=bool)
        mask[top:bottom, left:right] = True
        return mask
    inside = np.ones((resize.new_h, resize.new_w), dtype=bool)
    return segmentation_to_mask(annotation["segmentation"], T.TransformList([resize]), inside)
