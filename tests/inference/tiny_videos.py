"""A tiny model of videos with random weights, and frames for it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from ddep.inference import Predictor
from tests.inference.tiny_models import write_run

# Random queries are not sure of anything: all of them are instances.
ALL = ("TEST.CLIP.SCORE_THRESHOLD", 0.0, "TEST.CLIP.NEW_THRESHOLD", 0.0)


def video_run(folder: Path, *overrides: object) -> Path:
    """Write a run of a VideoMaskFormer for moving shapes into ``folder``."""
    return write_run(
        folder,
        "configs/demo/shapes_panoptic.yaml",
        *("MODEL.META_ARCHITECTURE", "VideoMaskFormer"),
        *("MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME", "VideoMultiScaleMaskedTransformerDecoder"),
        *("MODEL.MASK_FORMER.NUM_OBJECT_QUERIES", 5),
        *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 4),
        *("INPUT.DATASET_MAPPER_NAME", "mask_former_video_instance"),
        *("INPUT.MIN_SIZE_TEST", 48),
        *("DATASETS.TRAIN", ("moving_shapes_train",)),
        *("DATASETS.TEST", ("moving_shapes_val",)),
        *overrides,
    )


def video_predictor(folder: Path, *overrides: object) -> Predictor:
    """The predictor of such a run; it takes all queries of clips of 4 frames for instances."""
    return Predictor(video_run(folder, "TEST.CLIP.FRAMES", 4, *ALL, *overrides))


def frames(length: int, size: tuple[int, int] = (48, 64)) -> list[np.ndarray]:
    """(H, W, 3) uint8: a bright square that moves over a dark ground."""
    pictures = []
    for number in range(length):
        picture = np.full((*size, 3), (30, 60, 40), dtype=np.uint8)
        picture[12:32, 2 * number : 2 * number + 20] = (220, 180, 60)
        pictures.append(picture)
    return pictures
