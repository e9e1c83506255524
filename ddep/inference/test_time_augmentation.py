"""Test-time augmentation: results averaged over scales and flips of an image."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.data import transforms as T
from torch import nn

from ddep.data.augmentation import ResizeShortestEdge
from ddep.data.mappers.base import to_tensor
from ddep.inference.class_scores import ProbabilitySum


class ScalesAndFlips:
    """Makes the versions of an image that TEST.AUG asks for.

    Args:
        cfg: reads TEST.AUG.
    """

    def __init__(self, cfg: CfgNode) -> None:
        self._sizes = cfg.TEST.AUG.MIN_SIZES
        self._max_size = cfg.TEST.AUG.MAX_SIZE
        self._flip = cfg.TEST.AUG.FLIP

    def __call__(self, inputs: dict[str, Any]) -> Iterator[dict[str, Any]]:
        """
        Args:
            inputs: of a model: ``image`` (3, H, W), and ``height`` and ``width`` of the result
                (default: the image's).

        Yields:
            For each size the inputs with another ``image``; then, with FLIP, with its mirror image.
            ``height`` and ``width`` stay, and ``transforms`` lead from them to the image.
        """
        image = inputs["image"].permute(1, 2, 0).numpy()
        size = image.shape[:2]
        wanted = inputs.get("height", size[0]), inputs.get("width", size[1])
        before = [] if wanted == size else [T.ResizeTransform(*wanted, *size)]
        for shortest in self._sizes:
            resize = ResizeShortestEdge(shortest, self._max_size).get_transform(image)
            resized = to_tensor(resize.apply_image(image))
            version = {**inputs, "height": wanted[0], "width": wanted[1], "image": resized}
            yield {**version, "transforms": T.TransformList([*before, resize])}
            if self._flip:
                mirror = T.HFlipTransform(resized.shape[-1])
                transforms = T.TransformList([*before, resize, mirror])
                yield {**version, "image": resized.flip(-1), "transforms": transforms}


class SemanticSegmentorWithTTA(nn.Module):
    """Calls a model on several versions of each image and averages the class probabilities.

    As Mask2Former's class of this name, except that each version is made of the image in its own
    size, whereas Mask2Former first resizes it to INPUT.MIN_SIZE_TEST.

    Args:
        model: images -> ``sem_seg``.
        versions: of an image.
        class_scores: what is in ``sem_seg``, see :attr:`ddep.tasks.Task.class_scores`.
    """

    def __init__(self, model: nn.Module, versions: ScalesAndFlips, class_scores: str) -> None:
        super().__init__()
        self.model = model
        self.training = model.training
        self.versions = versions
        self.class_scores = class_scores

    @torch.no_grad()
    def forward(self, batched_inputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """
        Args:
            batched_inputs: one dict per image, see :class:`ScalesAndFlips`.

        Returns:
            One dict per image: ``sem_seg`` (K, height, width), of the kind that the model returns.
        """
        return [self._segment(inputs) for inputs in batched_inputs]

    def _segment(self, inputs: dict[str, Any]) -> dict[str, Any]:
        count = 0
        for version in self.versions(inputs):
            transforms = version.pop("transforms")
            if count == 0:
                size = version["height"], version["width"]
                total = ProbabilitySum(self.class_scores, size)
            scores = self.model([version])[0]["sem_seg"]
            total.add(scores, flipped=isinstance(transforms.transforms[-1], T.HFlipTransform))
            count += 1
        return {"sem_seg": total.mean(count)}
