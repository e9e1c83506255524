"""The same objects in several frames of a video, each in one colour."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from detectron2.data import Metadata
from detectron2.data import transforms as T
from pycocotools import mask as coco_mask

from ddep.data.image_reader import read_image
from ddep.drawing.classes import class_name
from ddep.drawing.segments import SCORE_THRESHOLD, visualizer

# Frames of a strip, and the longer side of each, in pixels, and the space between two.
STRIP_FRAMES = 4
_SIDE, _SPACE = 480, 4
_GOLDEN_RATIO = 0.6180339887498949


def track_colour(track_id: int) -> tuple[float, float, float]:
    """The colour of a track, RGB from 0 to 1; those of neighbouring numbers are far apart."""
    return colorsys.hsv_to_rgb((track_id * _GOLDEN_RATIO) % 1.0, 0.85, 0.95)


def draw_tracks(
    image: np.ndarray,
    masks: Sequence[np.ndarray],
    track_ids: Sequence[int],
    names: Sequence[str],
    metadata: Metadata | None,
) -> np.ndarray:
    """Draw the objects of one frame over it.

    Args:
        image: (H, W, 3) uint8, RGB.
        masks: N of (H, W) bool; objects without pixels are not drawn.
        track_ids: N numbers, which decide the colours.
        names: N texts.
        metadata: of the data set, for detectron2.

    Returns:
        (H, W, 3) uint8, RGB, or a multiple of that size if the image is small.
    """
    shown = [index for index, mask in enumerate(masks) if mask.any()]
    return (
        visualizer(image, metadata)
        .overlay_instances(
            masks=[masks[index] for index in shown],
            labels=[names[index] for index in shown],
            assigned_colors=[track_colour(track_ids[index]) for index in shown],
        )
        .get_image()
    )


def draw_video_outputs(
    file_names: Sequence[str], outputs: Mapping[str, Any], metadata: Metadata | None
) -> np.ndarray:
    """Draw a strip of frames with the instances that score above 0.5.

    Args:
        file_names: of all frames.
        outputs: of a model of videos, see
            :func:`ddep.modeling.video_postprocessing.video_instance_inference`.
        metadata: names of the classes.

    Returns:
        (H, W, 3) uint8, RGB.
    """
    names = metadata.get("thing_classes", []) if metadata else []
    instances = [
        (masks, f"{class_name(names, label)} {score:.0%}")
        for score, label, masks in zip(
            outputs["pred_scores"], outputs["pred_labels"], outputs["pred_masks"], strict=True
        )
        if score > SCORE_THRESHOLD
    ]
    pictures = []
    for frame in strip_frames(len(file_names)):
        image = read_image(file_names[frame], "RGB")
        resize = reduced(image)
        decoded = [coco_mask.decode(masks[frame]) for masks, _ in instances]
        pictures.append(
            draw_tracks(
                resize.apply_image(image),
                [resize.apply_segmentation(mask).astype(bool) for mask in decoded],
                range(len(instances)),
                [name for _, name in instances],
                metadata,
            )
        )
    return strip(pictures)


def strip_frames(length: int) -> list[int]:
    """The frames of a video that a strip shows: at most four, from the first to the last."""
    count = min(STRIP_FRAMES, length)
    return [round(index) for index in np.linspace(0, length - 1, count)]


def reduced(image: np.ndarray) -> T.ResizeTransform:
    """The resizing of an image (H, W, 3) for a picture of several: to at most 480 pixels, so that
    names can be read."""
    height, width = image.shape[:2]
    scale = min(1.0, _SIDE / max(height, width))
    return T.ResizeTransform(
        height, width, max(1, round(height * scale)), max(1, round(width * scale))
    )


def strip(pictures: Sequence[np.ndarray]) -> np.ndarray:
    """Put pictures (H, W, 3) of one height side by side, on white."""
    space = ((0, 0), (0, _SPACE), (0, 0))
    return np.concatenate(
        [np.pad(picture, space, constant_values=255) for picture in pictures], axis=1
    )
