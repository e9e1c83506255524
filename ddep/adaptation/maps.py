"""Maps over the pixels of single images: class probabilities, and what ADVENT makes of them."""

from __future__ import annotations

import math

from detectron2.structures import ImageList
from torch import Tensor
from torch.nn import functional as F


def image_maps(log_probabilities: Tensor, images: ImageList) -> list[Tensor]:
    """Resize log probabilities to the images, without their padding.

    Of a model that classifies pixels, this is the logarithm of the softmax of resized logits: the
    two differ by a number for each pixel, which the normalisation removes.

    Args:
        log_probabilities: (B, K, h, w) of padded images.
        images: padded at the bottom and on the right.

    Returns:
        For each image (K, H, W).
    """
    resized = F.interpolate(
        log_probabilities, images.tensor.shape[-2:], mode="bilinear", align_corners=False
    ).log_softmax(1)
    return [
        maps[:, :height, :width]
        for maps, (height, width) in zip(resized, images.image_sizes, strict=True)
    ]


def self_information(log_probabilities: Tensor) -> Tensor:
    """``-p log p / log K``, weighted self-information (ADVENT, arXiv 1811.12833, section 3.2).

    Args:
        log_probabilities: (K, H, W).

    Returns:
        (K, H, W); the sum over classes is :func:`entropy`.
    """
    return log_probabilities.exp() * log_probabilities / -math.log(len(log_probabilities))


def entropy(log_probabilities: Tensor) -> Tensor:
    """The entropy of each pixel, from 0 (one class is certain) to 1 (all K are as likely).

    Args:
        log_probabilities: (K, H, W).

    Returns:
        (H, W).
    """
    return self_information(log_probabilities).sum(0)
