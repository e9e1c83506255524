"""Image classification: a backbone, global average pooling and a linear layer."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.structures import ImageList
from torch import Tensor, nn
from torch.nn import functional as F

from ddep.errors import UserError
from ddep.modeling.meta_arch.data_set_classes import check_label_kind, check_num_classes
from ddep.modeling.normalisers import average_over_processes
from ddep.modeling.unused_features import zero_of


@META_ARCH_REGISTRY.register()
class ImageClassifier(nn.Module):
    """Predicts one class, or any number of classes, for each image.

    The backbone has the same names as in ``DenoisingPretrainer`` and ``MaskFormer``, which can
    therefore start from a classifier's checkpoint.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        num_classes: int,
        in_feature: str,
        multi_label: bool,
        label_smoothing: float,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        """
        Args:
            backbone: maps (B, 3, H, W) to a dict of features.
            num_classes: K.
            in_feature: the feature to pool; empty takes the one with the largest stride.
            multi_label: an image may have any number of classes, also none. Else it has one.
            label_smoothing: the share of the target distribution that is spread evenly over all
                classes (Szegedy et al., 2016, arXiv 1512.00567, section 7).
            pixel_mean, pixel_std: per channel, in units and order of the input images.

        Raises:
            UserError: the feature is unknown, or the label smoothing is out of range.
        """
        super().__init__()
        shapes = backbone.output_shape()
        if not in_feature:
            in_feature = max(shapes, key=lambda name: shapes[name].stride)
        if in_feature not in shapes:
            raise UserError(
                f"MODEL.CLASSIFIER.IN_FEATURE is {in_feature!r}; the backbone has "
                f"{', '.join(shapes)}"
            )
        if not 0 <= label_smoothing < 1:
            raise UserError(
                f"MODEL.CLASSIFIER.LABEL_SMOOTHING is {label_smoothing}; expected a number from 0 "
                "to below 1"
            )
        if multi_label and label_smoothing:
            raise UserError(
                f"MODEL.CLASSIFIER.LABEL_SMOOTHING is {label_smoothing}, but it is defined only "
                "for one class per image; set it to 0 or MODEL.CLASSIFIER.MULTI_LABEL to False"
            )
        self.backbone = backbone
        self.in_feature = in_feature
        self.stride = shapes[in_feature].stride
        self.head = nn.Linear(shapes[in_feature].channels, num_classes)
        nn.init.normal_(self.head.weight, std=0.01)
        nn.init.zeros_(self.head.bias)
        self.num_classes = num_classes
        self.multi_label = multi_label
        self.label_smoothing = label_smoothing
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            buffer = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the arguments of ``__init__`` from a config.

        Raises:
            UserError: the config does not fit the data set.
        """
        classifier = cfg.MODEL.CLASSIFIER
        check_num_classes(cfg, "MODEL.CLASSIFIER.NUM_CLASSES", ("classes",))
        check_label_kind(cfg)
        return {
            "backbone": build_backbone(cfg),
            "num_classes": classifier.NUM_CLASSES,
            "in_feature": classifier.IN_FEATURE,
            "multi_label": classifier.MULTI_LABEL,
            "label_smoothing": classifier.LABEL_SMOOTHING,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    @staticmethod
    def normalisers(batched_inputs: list[dict[str, Any]]) -> dict[str, float]:
        """What the loss of ``batched_inputs`` is averaged over: ``images``, their number."""
        return {"images": len(batched_inputs)}

    def forward(
        self,
        batched_inputs: list[dict[str, Any]],
        normalisers: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """Compute the loss in training, probabilities in evaluation.

        Args:
            batched_inputs: one dict per image: ``image`` (3, H, W), 0..255; in training ``classes``
                (N,) int64, exactly one without ``multi_label``. Smaller images are padded to the
                size of the largest; pooling leaves out the cells that cover only padding.
            normalisers: ``images``, a scalar that divides the sum of the images' losses in
                training; None takes the number of images of all processes, averaged.

        Returns:
            In training ``loss_classification``, averaged over images: cross entropy or, with
            ``multi_label``, binary cross entropy, also averaged over classes. In evaluation one
            dict per image with ``classes`` (K,), the probability of each class: softmax or, with
            ``multi_label``, sigmoid.

        Raises:
            UserError: a training image has no ``classes``, a class out of range or, without
                ``multi_label``, not exactly one class.
        """
        images = [inputs["image"].to(self.device) for inputs in batched_inputs]
        images = [(image - self.pixel_mean) / self.pixel_std for image in images]
        images = ImageList.from_tensors(images, self.backbone.size_divisibility)
        features = self.backbone(images.tensor)
        pooled = average_pool(features[self.in_feature], images.image_sizes, self.stride)
        logits = self.head(pooled)
        if not self.training:
            logits = logits.float()
            scores = logits.sigmoid() if self.multi_label else logits.softmax(dim=1)
            return [{"classes": of_image} for of_image in scores]
        losses = self._losses(logits, [self._classes(inputs) for inputs in batched_inputs])
        if normalisers is None:
            normalisers = average_over_processes(self.normalisers(batched_inputs), self.device)
        total = losses.sum() / normalisers["images"].to(losses.dtype)
        unused = [feature for name, feature in features.items() if name != self.in_feature]
        return {"loss_classification": total + zero_of(unused)}

    def _losses(self, logits: Tensor, classes: list[Tensor]) -> Tensor:
        """(B,) losses of (B, K) logits and each image's classes."""
        if self.multi_label:
            present = torch.stack(
                [torch.zeros(self.num_classes).index_fill(0, c, 1) for c in classes]
            )
            present = present.to(logits)
            losses = F.binary_cross_entropy_with_logits(logits, present, reduction="none")
            return losses.mean(dim=1)
        target = torch.cat(classes).to(logits.device)
        return F.cross_entropy(
            logits, target, reduction="none", label_smoothing=self.label_smoothing
        )

    def _classes(self, inputs: Mapping[str, Any]) -> Tensor:
        """The image's classes, checked on the CPU, where a data loader leaves them."""
        name = inputs.get("file_name", "an image without file_name")
        if "classes" not in inputs:
            raise UserError(
                f"{name}: no `classes`, which training needs; found {', '.join(sorted(inputs))}; "
                "train on a data set for classification"
            )
        classes = inputs["classes"].cpu()
        wrong = classes[(classes < 0) | (classes >= self.num_classes)]
        if len(wrong):
            raise UserError(
                f"{name}: class {wrong[0].item()}; expected 0 to {self.num_classes - 1}: set "
                "MODEL.CLASSIFIER.NUM_CLASSES or correct the labels"
            )
        if not self.multi_label and len(classes) != 1:
            raise UserError(
                f"{name}: {len(classes)} classes; expected one: set MODEL.CLASSIFIER.MULTI_LABEL "
                "to True or correct the labels"
            )
        return classes


def average_pool(feature: Tensor, image_sizes: Sequence[tuple[int, int]], stride: int) -> Tensor:
    """Average each image's feature over the cells that cover some of the image.

    Args:
        feature: (B, C, h, w), from images padded at the bottom and on the right.
        image_sizes: height and width of each image without padding, in pixels.
        stride: pixels of an image per cell, along each side.

    Returns:
        (B, C).
    """
    cells = [(-(-height // stride), -(-width // stride)) for height, width in image_sizes]
    if len(set(cells)) == 1:
        [(rows, columns)] = set(cells)
        return feature[..., :rows, :columns].mean(dim=(2, 3))
    parts = zip(feature, cells, strict=True)
    return torch.stack(
        [part[:, :rows, :columns].mean(dim=(1, 2)) for part, (rows, columns) in parts]
    )
