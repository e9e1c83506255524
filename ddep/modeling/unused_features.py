"""Features of a backbone that a model has no use for."""

from __future__ import annotations

from collections.abc import Iterable

from torch import Tensor


def zero_of(features: Iterable[Tensor]) -> Tensor | float:
    """A zero to add to a loss, with feature maps (B, C, H, W) in its graph.

    DistributedDataParallel expects a gradient for every parameter, which those of an unused
    feature, such as its norm in Swin, would not get.
    """
    return 0 * sum(feature[..., 0, 0].float().sum() for feature in features)
