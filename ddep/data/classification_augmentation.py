"""Training and test-time augmentation for image classification."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from torchvision.transforms import RandomResizedCrop

from ddep.config_checks import check_range
from ddep.data.augmentation import ResizeShortestEdge, build_flip, one_of
from ddep.data.colour_augmentation import build_recolouring
from ddep.data.window import ResizedCrop
from ddep.errors import UserError


class DrawResizedCrop:
    """Draws the rectangles to cut out of training images, as torchvision's RandomResizedCrop.

    The same numbers, from torch's global generator: the fraction of the area is uniform in
    ``scale`` and the ratio of width to height log-uniform in ``ratio``. If none of ten rectangles
    fits, the largest central one with an allowed ratio is taken (Szegedy et al., 2014,
    arXiv 1409.4842, section 6).
    """

    def __init__(self, side: int, scale: Sequence[float], ratio: Sequence[float]) -> None:
        """
        Args:
            side: of the square that rectangles are resized to, in pixels.
            scale: smallest and largest fraction of the image's area, above 0 and up to 1.
            ratio: smallest and largest width / height, above 0.

        Raises:
            UserError: an impossible value.
        """
        key = "INPUT.RANDOM_RESIZED_CROP"
        if not (isinstance(side, int) and side >= 1):
            raise UserError(f"{key}.SIZE is {side!r}; expected a whole number of at least 1")
        check_range(f"{key}.SCALE", scale, at_most=1)
        check_range(f"{key}.RATIO", ratio)
        self.side = side
        self.scale = list(scale)
        self.ratio = list(ratio)

    def __call__(self, size: tuple[int, int]) -> ResizedCrop:
        """Draw a rectangle of an image of this height and width."""
        placeholder = torch.empty(size, device="meta")
        rectangle = RandomResizedCrop.get_params(placeholder, self.scale, self.ratio)
        return ResizedCrop(*rectangle, image_size=size, size=(self.side, self.side))


class CenterCrop(T.Augmentation):
    """Cuts out a central square; sides of the image that are shorter stay whole."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def get_transform(self, image: np.ndarray) -> T.Transform:
        height, width = image.shape[:2]
        rows, columns = min(height, self.side), min(width, self.side)
        top, left = round((height - rows) / 2), round((width - columns) / 2)
        return T.CropTransform(left, top, columns, rows)


def build_resized_crop(cfg: CfgNode) -> DrawResizedCrop:
    """Build the random crop that INPUT.RANDOM_RESIZED_CROP describes.

    Raises:
        UserError: an impossible value.
    """
    crop = cfg.INPUT.RANDOM_RESIZED_CROP
    return DrawResizedCrop(crop.SIZE, crop.SCALE, crop.RATIO)


def build_augmentations(cfg: CfgNode, is_train: bool) -> T.AugmentationList:
    """Build all augmentations but training's random crop (:func:`build_resized_crop`).

    Training: random flip, and random colours as :func:`build_recolouring` says. Test time: resize
    the shorter side to ``INPUT.MIN_SIZE_TEST``, then cut out a central square with a side of
    ``INPUT.CENTER_CROP_TEST`` pixels.

    Raises:
        UserError: an unknown or impossible value.
    """
    if is_train:
        image_format = one_of(cfg.INPUT, "FORMAT", ("RGB", "BGR"))
        return T.AugmentationList([*build_recolouring(cfg, image_format), *build_flip(cfg)])
    shorter, side = cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.CENTER_CROP_TEST
    if not 0 <= side <= shorter:
        raise UserError(
            f"INPUT.CENTER_CROP_TEST is {side}; expected 0 to {shorter}, which is "
            "INPUT.MIN_SIZE_TEST"
        )
    crop = [CenterCrop(side)] if side else []
    return T.AugmentationList([ResizeShortestEdge(shorter, cfg.INPUT.MAX_SIZE_TEST), *crop])
