"""What training samples must have: annotations, classes in range, masks of the image's size."""

from __future__ import annotations

from typing import Any

from detectron2.structures import ImageList
from torch import Tensor
from torch.nn import functional as F

from ddep.errors import UserError


def annotations(inputs: dict[str, Any]) -> Any:
    """``instances`` of a training sample.

    Raises:
        UserError: it has none.
    """
    if "instances" not in inputs:
        raise UserError(
            f"{name_of(inputs)}: no `instances`, which training needs; found "
            f"{', '.join(sorted(inputs))}; train on a data set with annotations"
        )
    return inputs["instances"]


def name_of(inputs: dict[str, Any]) -> str:
    """The file name of a sample, for messages."""
    return str(inputs.get("file_name", "an image without file_name"))


def check_classes(classes: Tensor, inputs: dict[str, Any], num_classes: int, key: str) -> None:
    """Raise :class:`UserError` unless classes (T,) are in [0, ``num_classes``).

    They are looked at on their own device (the CPU, from a data loader).

    Args:
        classes: integers.
        inputs: the sample, for its name.
        num_classes: K.
        key: the config key that holds it.
    """
    if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < num_classes:
        raise UserError(
            f"{name_of(inputs)}: classes {int(classes.min())} to {int(classes.max())}, "
            f"expected 0 to {num_classes - 1}; set {key} or correct the labels"
        )


def padded_masks(
    masks: Tensor, inputs: dict[str, Any], image_size: tuple[int, int], images: ImageList
) -> Tensor:
    """Move masks (T, H, W) of an image to the device of ``images`` and pad them like the image.

    Raises:
        ValueError: the masks do not have the image's size.
    """
    if tuple(masks.shape[-2:]) != tuple(image_size):
        raise ValueError(
            f"{name_of(inputs)}: gt_masks are {tuple(masks.shape[-2:])}, the image is "
            f"{tuple(image_size)}"
        )
    height, width = image_size
    padded_height, padded_width = images.tensor.shape[-2:]
    padding = (0, padded_width - width, 0, padded_height - height)
    return F.pad(masks.to(images.tensor.device), padding)
