"""Semantic segmentation of an image in windows that overlap."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

from ddep.inference.class_scores import ProbabilitySum

# Windows that go through the model at once. They have one size, so nothing is padded for others.
_BATCH_SIZE = 4


class SlidingWindowSegmentor(nn.Module):
    """Calls a model on windows of each image and averages the class probabilities.

    As in mmsegmentation's ``slide`` mode, all windows that a pixel is in count alike, and the last
    window of each row and column is moved back to the border of the image. A window larger than the
    image is the image, and the result the model's own.

    Args:
        model: images -> ``sem_seg``.
        crop_size: height and width of a window in pixels of the model's input.
        stride: from window to window, down and to the right; at most ``crop_size``.
        class_scores: what is in ``sem_seg``, see :attr:`ddep.tasks.Task.class_scores`.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        crop_size: Sequence[int],
        stride: Sequence[int],
        class_scores: str,
    ) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self.crop_size = crop_size
        self.stride = stride
        self.class_scores = class_scores

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """
        Args:
            batched_inputs: one dict per image: ``image`` (3, H, W), and ``height`` and ``width`` of
                the result (default: the image's).

        Returns:
            One dict per image: ``sem_seg`` (K, height, width), of the kind that the model returns.
        """
        return [self._segment(inputs) for inputs in batched_inputs]

    def _segment(self, inputs: dict[str, Any]) -> dict[str, Any]:
        image = inputs["image"]
        size = tuple(image.shape[-2:])
        tops, lefts = map(window_starts, size, self.crop_size, self.stride)
        if len(tops) == len(lefts) == 1:
            return self.model([inputs])[0]
        height, width = map(min, size, self.crop_size)
        total = ProbabilitySum(self.class_scores, size)
        corners = list(product(tops, lefts))
        for first in range(0, len(corners), _BATCH_SIZE):
            batch = corners[first : first + _BATCH_SIZE]
            windows = [image[:, top : top + height, left : left + width] for top, left in batch]
            outputs = self.model(
                [{**inputs, "image": w, "height": height, "width": width} for w in windows]
            )
            for corner, output in zip(batch, outputs, strict=True):
                total.add(output["sem_seg"], *corner)
        count = _coverage(tops, height, size[0])[:, None] * _coverage(lefts, width, size[1])
        output_size = inputs.get("height", size[0]), inputs.get("width", size[1])
        return {"sem_seg": total.mean(count, output_size)}


def window_starts(length: int, crop: int, stride: int) -> list[int]:
    """Where windows of ``crop`` pixels begin that cover ``length`` pixels, the last at its end."""
    last = max(length - crop, 0)
    return [*range(0, last, stride), last]


def _coverage(starts: Sequence[int], window: int, length: int) -> Tensor:
    """How many windows each of ``length`` pixels is in: float32."""
    coverage = torch.zeros(length)
    for start in starts:
        coverage[start : start + window] += 1
    return coverage
