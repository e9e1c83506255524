"""Training and test-time augmentation of images together with their labels."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
from detectron2.config import CfgNode
from detectron2.data import transforms as T

from ddep.data.class_centre import CropAtClass
from ddep.data.clip_augmentation import AlikeInClip, build_frame_augmentations
from ddep.data.colour_augmentation import build_recolouring
from ddep.data.mapper_registry import mapper_class
from ddep.errors import UserError

# Images are padded with this grey, close to the mean colour, as in Mask2Former.
IMAGE_FILL = 128


def build_augmentations(cfg: CfgNode, is_train: bool) -> T.AugmentationList:
    """Build the augmentations that the config and its mapper ask for.

    In training the mapper's class names one of :data:`RECIPES`; all of them flip images randomly,
    and change their colours as :func:`build_recolouring` says. At test time the shorter side is
    resized to ``INPUT.MIN_SIZE_TEST``; with ``TEST.AUG``, which resizes to several sizes, nothing
    is done.

    Raises:
        UserError: an unknown value.
    """
    if not is_train:
        resize = ResizeShortestEdge(cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST)
        return T.AugmentationList([] if cfg.TEST.AUG.ENABLED else [resize])
    image_format = one_of(cfg.INPUT, "FORMAT", ("RGB", "BGR"))
    recolour = build_recolouring(cfg, image_format)
    mapper = mapper_class(cfg.INPUT.DATASET_MAPPER_NAME)
    return T.AugmentationList(RECIPES[mapper.augmentation](cfg, mapper.needs_labels, recolour))


def build_geometry(cfg: CfgNode) -> T.AugmentationList:
    """Build the resizing, crop and flip that :func:`build_augmentations` gives training images.

    They are for images without labels: ``INPUT.CROP.SINGLE_CATEGORY_MAX_AREA`` has no effect.

    Raises:
        UserError: an unknown value.
    """
    mapper = mapper_class(cfg.INPUT.DATASET_MAPPER_NAME)
    return T.AugmentationList(RECIPES[mapper.augmentation](cfg, None, []))


def _resize_and_crop(
    cfg: CfgNode, labels: str | None, recolour: list[T.Augmentation]
) -> list[T.Augmentation]:
    """Resize the shorter side to INPUT.MIN_SIZE_TRAIN, crop if INPUT.CROP.ENABLED, pad to
    INPUT.SIZE_DIVISIBILITY.

    Denoising does not pad here: its model must know which pixels count.
    """
    pad = _pad(cfg) if labels is not None else []
    has_map = labels in ("sem_seg", "panoptic_seg")
    return [*_resize(cfg), *_crop(cfg, has_map), *recolour, *build_flip(cfg), *pad]


def _large_scale_jitter(
    cfg: CfgNode, labels: str | None, recolour: list[T.Augmentation]
) -> list[T.Augmentation]:
    """Resize by a random factor, then crop or pad to a square of INPUT.IMAGE_SIZE pixels (Ghiasi et
    al., 2021, arXiv 2012.07177, section 3)."""
    side = cfg.INPUT.IMAGE_SIZE
    return [
        *build_flip(cfg),
        *recolour,
        ResizeScale(cfg.INPUT.MIN_SCALE, cfg.INPUT.MAX_SCALE, side, side),
        T.FixedSizeCrop((side, side), pad_value=IMAGE_FILL),
    ]


def _detr(cfg: CfgNode, labels: str | None, recolour: list[T.Augmentation]) -> list[T.Augmentation]:
    """If INPUT.CROP.ENABLED, resize the shorter side of half of the images to 400, 500 or 600
    pixels and crop them; then resize the shorter side of all to INPUT.MIN_SIZE_TRAIN (DETR, arXiv
    2005.12872, section 4, "Technical details")."""
    crop = _crop(cfg, has_map=False)
    if crop:
        resize_and_crop = [ResizeShortestEdge((400, 500, 600), sample_style="choice"), *crop]
        crop = [T.RandomApply(T.AugmentationList(resize_and_crop), prob=0.5)]
    return [*build_flip(cfg), *recolour, *crop, *_resize(cfg)]


def _clip(cfg: CfgNode, labels: str | None, recolour: list[T.Augmentation]) -> list[T.Augmentation]:
    """Crop if INPUT.CROP.ENABLED, the same part of each frame, resize the shorter side to
    INPUT.MIN_SIZE_TRAIN, flip, and do what INPUT.AUGMENTATIONS names, as Mask2Former-video does.

    Its crops differ from frame to frame, in size as well, which would tear the objects' motion.
    """
    crop = [AlikeInClip(augmentation) for augmentation in _crop(cfg, has_map=False)]
    resize = _resize(cfg, ("choice", "range", "choice_by_clip", "range_by_clip"))
    if cfg.INPUT.MIN_SIZE_TRAIN_SAMPLING.endswith("_by_clip"):
        resize = [AlikeInClip(augmentation) for augmentation in resize]
    flip = build_flip(cfg, ("horizontal", "vertical", "none", "flip_by_clip"))
    if cfg.INPUT.RANDOM_FLIP == "flip_by_clip":
        flip = [AlikeInClip(augmentation) for augmentation in flip]
    return [*crop, *resize, *flip, *recolour, *build_frame_augmentations(cfg)]


# Training augmentations, by the attribute ``augmentation`` of mappers.
RECIPES = {
    "resize_and_crop": _resize_and_crop,
    "large_scale_jitter": _large_scale_jitter,
    "detr": _detr,
    "clip": _clip,
}


def _resize(cfg: CfgNode, samplings: tuple[str, ...] = ("choice", "range")) -> list[T.Augmentation]:
    sampling = one_of(cfg.INPUT, "MIN_SIZE_TRAIN_SAMPLING", samplings)
    sampling = sampling.removesuffix("_by_clip")
    sizes = cfg.INPUT.MIN_SIZE_TRAIN
    if sampling == "range" and len(sizes) != 2:
        raise UserError(
            f"INPUT.MIN_SIZE_TRAIN is {sizes}; INPUT.MIN_SIZE_TRAIN_SAMPLING range needs two values"
        )
    return [ResizeShortestEdge(sizes, cfg.INPUT.MAX_SIZE_TRAIN, sampling)]


def _crop(cfg: CfgNode, has_map: bool) -> list[T.Augmentation]:
    """The crop of INPUT.CROP; ``has_map`` says whether samples have a map of classes."""
    crop = cfg.INPUT.CROP
    if not crop.ENABLED:
        return []
    kinds = ("relative_range", "relative", "absolute", "absolute_range")
    kind = one_of(crop, "TYPE", kinds, "INPUT.CROP")
    _check_crop_size(kind, crop.SIZE)
    largest, ignored = crop.SINGLE_CATEGORY_MAX_AREA, cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE
    augmentation = T.RandomCrop(kind, crop.SIZE)
    if largest < 1 and has_map:
        augmentation = MixedCrop(kind, crop.SIZE, largest, ignored)
    if cfg.DATALOADER.CLASS_UNIFORM.SHARE > 0 and has_map:
        augmentation = CropAtClass(augmentation)
    return [augmentation]


def _check_crop_size(kind: str, size: Sequence[float]) -> None:
    if kind.startswith("absolute"):
        expected = "two whole numbers of at least 1"
        fits = all(isinstance(side, int) and side >= 1 for side in size)
    else:
        expected = "two numbers above 0 and up to 1"
        fits = all(isinstance(side, (int, float)) and 0 < side <= 1 for side in size)
    if kind == "absolute_range":
        expected += ", the lower one first"
        fits = fits and list(size) == sorted(size)
    if not fits or len(size) != 2:
        raise UserError(f"INPUT.CROP.SIZE is {list(size)}; INPUT.CROP.TYPE {kind} needs {expected}")


def build_flip(
    cfg: CfgNode, directions: tuple[str, ...] = ("horizontal", "vertical", "none")
) -> list[T.Augmentation]:
    """The flip that INPUT.RANDOM_FLIP asks for, if any; it may be one of ``directions``.

    Raises:
        UserError: an unknown value.
    """
    direction = one_of(cfg.INPUT, "RANDOM_FLIP", directions)
    if direction == "none":
        return []
    is_vertical = direction == "vertical"
    return [RandomFlip(horizontal=not is_vertical, vertical=is_vertical)]


def _pad(cfg: CfgNode) -> list[T.Augmentation]:
    if cfg.INPUT.SIZE_DIVISIBILITY <= 0:
        return []
    return [PadToSquare(cfg.INPUT.SIZE_DIVISIBILITY)]


def one_of(node: CfgNode, key: str, known: tuple[str, ...], path: str = "INPUT") -> str:
    """Return ``node[key]``, the config's ``path.key``; UserError unless it is in ``known``."""
    if node[key] not in known:
        raise UserError(f"{path}.{key} is {node[key]!r}; expected one of {', '.join(known)}")
    return node[key]


class ResizeShortestEdge(T.ResizeShortestEdge):
    """detectron2's, but no side of a very long image shrinks below one pixel."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        return _at_least_one_pixel(super().get_transform(image))


class ResizeScale(T.ResizeScale):
    """detectron2's, but no side of a very long image shrinks below one pixel."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        return _at_least_one_pixel(super().get_transform(image))


def _at_least_one_pixel(resize: T.Transform) -> T.Transform:
    if isinstance(resize, T.ResizeTransform):
        resize.new_h, resize.new_w = max(1, int(resize.new_h)), max(1, int(resize.new_w))
    return resize


class RandomFlip(T.RandomFlip):
    """detectron2's, but OpenCV flips the images: many times faster, and contiguous."""

    def get_transform(self, image: np.ndarray) -> T.Transform:
        flip = super().get_transform(image)
        if isinstance(flip, T.HFlipTransform):
            return HorizontalFlip(flip.width)
        return VerticalFlip(flip.height) if isinstance(flip, T.VFlipTransform) else flip


class HorizontalFlip(T.HFlipTransform):
    """Swaps left and right."""

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        return cv2.flip(image, 1)

    def apply_segmentation(self, labels: np.ndarray) -> np.ndarray:
        # OpenCV does not take every dtype.
        return labels[:, ::-1]


class VerticalFlip(T.VFlipTransform):
    """Swaps top and bottom."""

    def apply_image(self, image: np.ndarray) -> np.ndarray:
        return cv2.flip(image, 0)

    def apply_segmentation(self, labels: np.ndarray) -> np.ndarray:
        return labels[::-1]


class MixedCrop(T.RandomCrop_CategoryAreaConstraint):
    """detectron2's crop that one class must not fill, with a clear error if labels are missing."""

    def get_transform(self, image: np.ndarray, sem_seg: np.ndarray | None) -> T.Transform:
        if sem_seg is None:
            raise UserError(
                "INPUT.CROP.SINGLE_CATEGORY_MAX_AREA is below 1, which needs semantic labels "
                "(sem_seg_file_name), but the data set has none; set it to 1.0"
            )
        return super().get_transform(image, sem_seg)


class PadToSquare(T.Augmentation):
    """Pad right and bottom up to ``side`` pixels; larger sides are kept."""

    def __init__(self, side: int) -> None:
        super().__init__()
        self.side = side

    def get_transform(self, image: np.ndarray) -> T.Transform:
        height, width = image.shape[:2]
        right, bottom = max(0, self.side - width), max(0, self.side - height)
        return T.PadTransform(0, 0, right, bottom, width, height, pad_value=IMAGE_FILL)


class LabelledImage(T.AugInput):
    """detectron2's AugInput, whose semantic labels :func:`transform_labels` transforms."""

    def __init__(
        self,
        image: np.ndarray,
        sem_seg: np.ndarray | None,
        ignore_label: int,
        class_centre: np.ndarray | None = None,
    ) -> None:
        """
        Args:
            image: (H, W, 3) uint8.
            sem_seg: (H, W) integers, or None.
            ignore_label: value of ``sem_seg`` outside the image.
            class_centre: x, y of a place that crops should show, or None.
        """
        super().__init__(image, sem_seg=sem_seg)
        self.ignore_label = ignore_label
        self.class_centre = class_centre

    def transform(self, tfm: T.Transform) -> None:
        self.image = tfm.apply_image(self.image)
        if self.class_centre is not None:
            [self.class_centre] = tfm.apply_coords(self.class_centre[None].copy())
        if self.sem_seg is not None:
            self.sem_seg = transform_labels(tfm, self.sem_seg, self.ignore_label)


def transform_labels(transform: T.Transform, labels: np.ndarray, fill: int) -> np.ndarray:
    """Transform a label map as ``transform`` does its image.

    detectron2's own ``apply_segmentation`` aligns pixel corners, not centres, when it resizes
    anything but 8-bit maps, which shifts labels against the image by up to half a pixel of the
    larger grid; and its versions disagree on the label of padded pixels.

    Args:
        transform: what an augmentation returned for the image.
        labels: (H, W) of any dtype.
        fill: label of padded pixels.

    Returns:
        (H', W') of the same dtype.
    """
    if isinstance(transform, T.TransformList):
        for step in transform.transforms:
            labels = transform_labels(step, labels, fill)
        return labels
    if isinstance(transform, T.ResizeTransform):
        rows = _nearest(transform.h, transform.new_h)
        columns = _nearest(transform.w, transform.new_w)
        return labels.take(rows, axis=0).take(columns, axis=1)
    if isinstance(transform, T.PadTransform):
        border = ((transform.y0, transform.y1), (transform.x0, transform.x1))
        return np.pad(labels, border, constant_values=fill)
    return transform.apply_segmentation(labels)


def _nearest(old: int, new: int) -> np.ndarray:
    """Index of the old pixel under each new pixel's centre: ``floor((i + 0.5) * old / new)``."""
    return (2 * np.arange(new) + 1) * old // (2 * new)
