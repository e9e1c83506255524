"""Segments, instances and classes over images."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence, Sized
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from detectron2.structures import Instances
from detectron2.utils.visualizer import ColorMode, VisImage, Visualizer

from ddep.data.image_reader import read_image
from ddep.errors import UserError

SCORE_THRESHOLD = 0.5
# Images whose shorter side is smaller are enlarged by a whole number, so that names do not cover
# the segments, as long as the longer side stays below this.
MIN_SIDE = 300
MAX_ENLARGED_SIDE = 2000
# Of matplotlib's canvas.
MAX_SIDE = 2**16 - 1


def draw_outputs(file_name: str, outputs: Mapping[str, Any], metadata: Metadata) -> np.ndarray:
    """Draw what a model found in an image.

    Panoptic segments if there are any to draw, else instances, else semantic classes.

    Args:
        file_name: of the image.
        outputs: of the model, as detectron2's evaluators take them.
        metadata: names and colours of the classes.

    Returns:
        (H, W, 3) uint8, RGB, or a multiple of that size if the image is small.
    """
    image = read_image(file_name, "RGB")
    if "panoptic_seg" in outputs:
        return draw_panoptic(image, *outputs["panoptic_seg"], metadata)
    if "instances" in outputs:
        return draw_instances(image, outputs["instances"], metadata)
    return draw_semantic(image, outputs["sem_seg"].argmax(0), metadata)


def class_metadata(cfg: CfgNode) -> Metadata:
    """Names and colours of the classes: those of the first known set in DATASETS.TEST and TRAIN.

    Raises:
        UserError: none of them is known.
    """
    names = (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN)
    for name in names:
        metadata = MetadataCatalog.get(name)
        if metadata.get("stuff_classes") or metadata.get("thing_classes"):
            return metadata
    raise UserError(
        f"DATASETS.TEST and DATASETS.TRAIN are {', '.join(names) or 'empty'}; expected a "
        "registered data set, whose classes give the results their names"
    )


def draw_panoptic(
    image: np.ndarray, panoptic_seg: torch.Tensor, segments: list[dict], metadata: Metadata
) -> np.ndarray:
    """Draw segments over ``image`` (H, W, 3) uint8; ``panoptic_seg`` is (H, W) of segment ids."""
    canvas = visualizer(image, metadata)
    return canvas.draw_panoptic_seg(panoptic_seg.cpu(), segments, area_threshold=0).get_image()


def draw_semantic(image: np.ndarray, classes: torch.Tensor, metadata: Metadata) -> np.ndarray:
    """Draw a class map (H, W) over ``image`` (H, W, 3) uint8."""
    return visualizer(image, metadata).draw_sem_seg(classes.cpu()).get_image()


def draw_instances(image: np.ndarray, instances: Instances, metadata: Metadata) -> np.ndarray:
    """Draw the instances that score above 0.5 over ``image`` (H, W, 3) uint8."""
    instances = instances.to("cpu")
    shown = instances[instances.scores > SCORE_THRESHOLD]
    return visualizer(image, metadata).draw_instance_predictions(shown).get_image()


def draw_annotations(
    image: np.ndarray, annotations: list[dict[str, Any]], metadata: Metadata
) -> np.ndarray:
    """Draw true instances, crowds marked, over ``image`` (H, W, 3) uint8.

    ``annotations`` are detectron2's, of an image of this size, with masks (H, W) bool.
    """
    return visualizer(image, metadata).draw_dataset_dict({"annotations": annotations}).get_image()


def visualizer(image: np.ndarray, metadata: Metadata | None) -> Visualizer:
    """What draws over ``image`` (H, W, 3) uint8; small images are enlarged.

    Raises:
        UserError: the image is too large for a picture.
    """
    shorter, longer = sorted(image.shape[:2])
    if longer > MAX_SIDE:
        raise UserError(
            f"an image is {image.shape[1]}x{image.shape[0]}; pictures have at most {MAX_SIDE} "
            "pixels a side: save the results as data, or make the image smaller"
        )
    scale = max(1, min(math.ceil(MIN_SIDE / shorter), MAX_ENLARGED_SIDE // longer))
    return _Visualizer(image, metadata, scale=scale, instance_mode=ColorMode.SEGMENTATION)


class _Visualizer(Visualizer):
    """detectron2's, which varies the colour of a class at random, to tell things apart.

    Here, the n-th segment of a class always has the same colour: videos do not flicker, and a
    picture can be made again.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._drawn: Counter[tuple[float, ...]] = Counter()

    def _jitter(self, color: Sequence[float]) -> tuple[float, ...]:
        """A colour of numbers from 0 to 1, varied as much as detectron2 does."""
        change = np.random.default_rng(self._drawn[tuple(color)]).random(3)
        self._drawn[tuple(color)] += 1
        return tuple(np.clip(color + 0.5 * change / np.linalg.norm(change), 0, 1))

    def overlay_instances(
        self, *, assigned_colors: Sequence[Any] | None = None, **things: Any
    ) -> VisImage:
        if assigned_colors is None:
            count = max(len(values) for values in things.values() if isinstance(values, Sized))
            assigned_colors = [self._jitter((0.0, 0.0, 0.0)) for _ in range(count)]
        return super().overlay_instances(assigned_colors=assigned_colors, **things)

    def draw_binary_mask(self, binary_mask: np.ndarray, color: Any = None, **how: Any) -> VisImage:
        if color is None:
            color = self._jitter((0.0, 0.0, 0.0))
        return super().draw_binary_mask(binary_mask, color, **how)
