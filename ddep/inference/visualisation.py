"""Pictures of results: segments over the image, or noisy | denoised | clean."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from detectron2.structures import Instances
from detectron2.utils.visualizer import ColorMode, Visualizer

from ddep.data import read_image
from ddep.errors import UserError
from ddep.evaluation.denoising import noisy_denoised_clean, to_picture

SCORE_THRESHOLD = 0.5
# Pictures of segments whose shorter side is smaller are enlarged by a whole number, so that names
# do not cover what they name.
MIN_SIDE = 300


def draw_outputs(
    cfg: CfgNode,
    inputs: Mapping[str, Any],
    outputs: Mapping[str, Any],
    metadata: Metadata | None = None,
) -> np.ndarray:
    """Draw a model's output for one image.

    Panoptic segments if there are any to draw, else instances, else semantic classes; for a
    denoiser the three images side by side.

    Args:
        cfg: the model's config.
        inputs: what the mapper gave the model, with ``file_name``.
        outputs: what the model gave back.
        metadata: names and colours of the classes, by default :func:`class_metadata`.

    Returns:
        (H, W, 3) uint8, RGB, or a multiple of that size if the image is small; (H, 3 W, 3) for a
        denoiser.
    """
    if "denoised" in outputs:
        return draw_denoising(cfg, inputs, outputs)
    image = read_image(inputs["file_name"], "RGB")
    metadata = metadata or class_metadata(cfg)
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


def draw_denoising(
    cfg: CfgNode, inputs: Mapping[str, Any], outputs: Mapping[str, Any]
) -> np.ndarray:
    """Put the noisy, the denoised and the clean image side by side: (H, 3 W, 3) uint8, RGB."""
    mean, std = (
        torch.tensor(x).view(-1, 1, 1) for x in (cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD)
    )
    versions = noisy_denoised_clean(inputs, outputs, cfg.MODEL.DDEP.NOISE, mean, std)
    pictures = [to_picture(version, cfg.INPUT.FORMAT) for version in versions]
    return torch.cat(pictures, dim=2).permute(1, 2, 0).numpy()


def draw_panoptic(
    image: np.ndarray, panoptic_seg: torch.Tensor, segments: list[dict], metadata: Metadata
) -> np.ndarray:
    """Draw segments over ``image`` (H, W, 3) uint8; ``panoptic_seg`` is (H, W) of segment ids."""
    visualizer = _visualizer(image, metadata)
    return visualizer.draw_panoptic_seg(panoptic_seg.cpu(), segments, area_threshold=0).get_image()


def draw_semantic(image: np.ndarray, classes: torch.Tensor, metadata: Metadata) -> np.ndarray:
    """Draw a class map (H, W) over ``image`` (H, W, 3) uint8."""
    return _visualizer(image, metadata).draw_sem_seg(classes.cpu()).get_image()


def draw_instances(image: np.ndarray, instances: Instances, metadata: Metadata) -> np.ndarray:
    """Draw the instances that score above 0.5 over ``image`` (H, W, 3) uint8."""
    instances = instances.to("cpu")
    shown = instances[instances.scores > SCORE_THRESHOLD]
    return _visualizer(image, metadata).draw_instance_predictions(shown).get_image()


def draw_annotations(
    image: np.ndarray, annotations: list[dict[str, Any]], metadata: Metadata
) -> np.ndarray:
    """Draw true instances, crowds marked, over ``image`` (H, W, 3) uint8.

    ``annotations`` are detectron2's, of an image of this size, with masks (H, W) bool.
    """
    return _visualizer(image, metadata).draw_dataset_dict({"annotations": annotations}).get_image()


def _visualizer(image: np.ndarray, metadata: Metadata) -> Visualizer:
    scale = math.ceil(MIN_SIDE / min(image.shape[:2]))
    return Visualizer(image, metadata, scale=scale, instance_mode=ColorMode.SEGMENTATION)
