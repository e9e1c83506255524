"""DETR: objects by queries."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.structures import Boxes, ImageList, Instances
from torch import Tensor, nn
from torchvision.ops import box_convert

from ddep.errors import UserError
from ddep.modeling.box_criterion import BoxCriterion
from ddep.modeling.box_matcher import BoxMatcher
from ddep.modeling.meta_arch.mask_classifier import annotations, name_of
from ddep.modeling.normalisers import average_over_processes
from ddep.modeling.padding import valid_cells
from ddep.modeling.position_encoding import PositionEmbeddingLearned
from ddep.modeling.transformer_decoder.layers import MLP
from ddep.modeling.transformer_decoder.transformer import Transformer
from ddep.modeling.unused_features import zero_of

_POSITION_EMBEDDINGS = ("sine", "learned")


@META_ARCH_REGISTRY.register()
class Detr(nn.Module):
    """Object detection with transformers (Carion et al., 2020, arXiv 2005.12872).

    Queries attend to the encoded last feature of a backbone; each becomes a class, which may be
    no object, and a box.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        transformer: Transformer,
        learned_positions: bool,
        num_classes: int,
        hidden_dim: int,
        num_queries: int,
        criterion: BoxCriterion,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        """
        Args:
            backbone: images (B, 3, H, W) -> dict of features, the last of which is looked at.
            transformer: encoder and decoder of ``hidden_dim`` channels.
            learned_positions: learn the positions of pixels; else they are sines and cosines.
            num_classes: K; "no object" is added as the last class.
            hidden_dim: channels C.
            num_queries: Q, the largest number of objects in an image.
            criterion: outputs and targets -> losses, and ``weight_dict``.
            pixel_mean, pixel_std: per channel, in units and order of the input images.
        """
        super().__init__()
        self.backbone = backbone
        shapes = backbone.output_shape()
        self.in_feature = list(shapes)[-1]
        self.input_proj = nn.Conv2d(shapes[self.in_feature].channels, hidden_dim, kernel_size=1)
        self.transformer = transformer
        if learned_positions:
            self.position_embedding = PositionEmbeddingLearned(hidden_dim)
        self.learned_positions = learned_positions
        self.num_classes = num_classes
        self.num_queries = num_queries
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        self.class_embed = nn.Linear(hidden_dim, num_classes + 1)
        self.bbox_embed = MLP(hidden_dim, hidden_dim, 4, 3)
        self.criterion = criterion
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            buffer = torch.tensor(values, dtype=torch.float32).view(-1, 1, 1)
            self.register_buffer(name, buffer, persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        """Read the arguments of ``__init__`` from MODEL.DETR.

        Raises:
            UserError: a value that is out of range.
        """
        detr = cfg.MODEL.DETR
        check_detr_config(detr)
        criterion = BoxCriterion(
            detr.NUM_CLASSES,
            matcher=BoxMatcher(cost_class=1.0, cost_l1=detr.L1_WEIGHT, cost_giou=detr.GIOU_WEIGHT),
            class_weight=1.0,
            l1_weight=detr.L1_WEIGHT,
            giou_weight=detr.GIOU_WEIGHT,
            no_object_weight=detr.NO_OBJECT_WEIGHT,
            num_aux_outputs=detr.DEC_LAYERS - 1 if detr.DEEP_SUPERVISION else 0,
        )
        transformer = Transformer(
            num_encoder_layers=detr.ENC_LAYERS,
            num_decoder_layers=detr.DEC_LAYERS,
            d_model=detr.HIDDEN_DIM,
            nhead=detr.NHEADS,
            dim_feedforward=detr.DIM_FEEDFORWARD,
            dropout=detr.DROPOUT,
            normalize_before=detr.PRE_NORM,
        )
        return {
            "backbone": build_backbone(cfg),
            "transformer": transformer,
            "learned_positions": detr.POSITION_EMBEDDING == "learned",
            "num_classes": detr.NUM_CLASSES,
            "hidden_dim": detr.HIDDEN_DIM,
            "num_queries": detr.NUM_OBJECT_QUERIES,
            "criterion": criterion,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def normalisers(self, batched_inputs: list[dict[str, Any]]) -> dict[str, float]:
        """What the losses of ``batched_inputs`` are averaged over.

        Args:
            batched_inputs: as for :meth:`forward` in training.

        Returns:
            ``boxes`` and ``class_weights``, see :meth:`MatchingCriterion.normalisers`.

        Raises:
            UserError: an image without annotations or with a class out of range.
        """
        num_targets = [len(self._objects(inputs)) for inputs in batched_inputs]
        return self.criterion.normalisers(num_targets, self.num_queries)

    def forward(
        self,
        batched_inputs: list[dict[str, Any]],
        normalisers: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor] | list[dict[str, Instances]]:
        """Compute losses in training, objects in evaluation.

        Args:
            batched_inputs: one dict per image: ``image`` (3, H, W), 0..255; in training
                ``instances`` with ``gt_classes`` (T,) int64 and ``gt_boxes`` (T, 4), absolute
                XYXY; in evaluation ``height`` and ``width``, the size of the results (default: the
                image's). Images are padded to one size, and nothing attends to the padding.
            normalisers: scalars by name that divide the sums of losses in training; None takes the
                :meth:`normalisers` of the batches of all processes, averaged.

        Returns:
            In training a dict of weighted losses. In evaluation one dict per image with
            ``instances``: of each query ``pred_boxes``, in pixels of the results and not clipped to
            them, ``pred_classes``, the likeliest object, and its probability ``scores``.

        Raises:
            UserError: a training image without annotations or with a class out of range.
        """
        images = self._prepare_images(batched_inputs)
        features = self.backbone(images.tensor)
        outputs = self.predict(features, images)
        if not self.training:
            return self._results(outputs, images.image_sizes, batched_inputs)
        targets = [self._targets(inputs) for inputs in batched_inputs]
        if normalisers is None:
            normalisers = average_over_processes(self.normalisers(batched_inputs), self.device)
        losses = self.criterion(outputs, targets, normalisers)
        weights = self.criterion.weight_dict
        losses = {name: loss * weights[name] for name, loss in losses.items()}
        unused = [feature for name, feature in features.items() if name != self.in_feature]
        losses["loss_ce"] = losses["loss_ce"] + zero_of(unused)
        return losses

    def predict(self, features: Mapping[str, Tensor], images: ImageList) -> dict[str, Any]:
        """Predict Q objects per image.

        Args:
            features: of the backbone.
            images: what it saw.

        Returns:
            ``pred_logits`` (B, Q, K+1) and ``pred_boxes`` (B, Q, 4) float32, cxcywh relative to
            the image without padding, of the last layer; ``aux_outputs``, a list of dicts with the
            same of every layer before it, empty without deep supervision and in evaluation.
        """
        feature = self.input_proj(features[self.in_feature])
        cells = feature.shape[-2:]
        queries_of_layers, _ = self.transformer(
            feature,
            self.query_embed.weight,
            valid=valid_cells(images.image_sizes, images.tensor.shape[-2:], cells, self.device),
            pos=self.position_embedding(*cells) if self.learned_positions else None,
        )
        if not (self.criterion.num_aux_outputs and self.training):
            queries_of_layers = queries_of_layers[-1:]
        predictions = [
            {
                "pred_logits": self.class_embed(queries),
                "pred_boxes": self.bbox_embed(queries).float().sigmoid(),
            }
            for queries in queries_of_layers
        ]
        return {**predictions[-1], "aux_outputs": predictions[:-1]}

    def _prepare_images(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalised images on the model's device, padded to one size."""
        images = [inputs["image"].to(self.device) for inputs in batched_inputs]
        images = [(image - self.pixel_mean) / self.pixel_std for image in images]
        return ImageList.from_tensors(images, self.backbone.size_divisibility)

    def _objects(self, inputs: dict[str, Any]) -> Instances:
        """The objects that a training sample is annotated with, classes checked."""
        instances = annotations(inputs)
        classes = instances.gt_classes
        if len(classes) and not 0 <= int(classes.min()) <= int(classes.max()) < self.num_classes:
            raise UserError(
                f"{name_of(inputs)}: classes {int(classes.min())} to {int(classes.max())}, "
                f"expected 0 to {self.num_classes - 1}; set MODEL.DETR.NUM_CLASSES or correct the "
                "labels"
            )
        return instances

    def _targets(self, inputs: dict[str, Any]) -> dict[str, Tensor]:
        """``labels`` (T,) and ``boxes`` (T, 4), cxcywh relative to the image."""
        instances = self._objects(inputs).to(self.device)
        boxes = instances.gt_boxes.tensor
        height, width = instances.image_size
        size = boxes.new_tensor([width, height, width, height])
        return {
            "labels": instances.gt_classes,
            "boxes": box_convert(boxes, "xyxy", "cxcywh") / size,
        }

    def _results(
        self,
        outputs: Mapping[str, Tensor],
        image_sizes: Sequence[tuple[int, int]],
        batched_inputs: list[dict[str, Any]],
    ) -> list[dict[str, Instances]]:
        probabilities = outputs["pred_logits"].float().softmax(-1)
        scores, classes = probabilities[..., :-1].max(-1)
        results = []
        for image, (inputs, size) in enumerate(zip(batched_inputs, image_sizes, strict=True)):
            height, width = inputs.get("height", size[0]), inputs.get("width", size[1])
            boxes = Boxes(box_convert(outputs["pred_boxes"][image], "cxcywh", "xyxy"))
            boxes.scale(width, height)
            instances = Instances((height, width), pred_boxes=boxes)
            instances.scores, instances.pred_classes = scores[image], classes[image]
            results.append({"instances": instances})
        return results


def check_detr_config(detr: CfgNode) -> None:
    """Check MODEL.DETR.

    Raises:
        UserError: a value that is out of range.
    """
    divisor = math.lcm(4, detr.NHEADS)
    if detr.HIDDEN_DIM % divisor:
        raise UserError(
            f"MODEL.DETR.HIDDEN_DIM is {detr.HIDDEN_DIM}; expected a multiple of 4 (position "
            f"encoding) and of MODEL.DETR.NHEADS {detr.NHEADS}"
        )
    for key, least in (
        ("NUM_CLASSES", 1),
        ("NUM_OBJECT_QUERIES", 1),
        ("DEC_LAYERS", 1),
        ("ENC_LAYERS", 0),
        ("L1_WEIGHT", 0),
        ("GIOU_WEIGHT", 0),
        ("NO_OBJECT_WEIGHT", 0),
    ):
        if detr[key] < least:
            raise UserError(f"MODEL.DETR.{key} is {detr[key]}; expected at least {least}")
    if detr.POSITION_EMBEDDING not in _POSITION_EMBEDDINGS:
        raise UserError(
            f"MODEL.DETR.POSITION_EMBEDDING is {detr.POSITION_EMBEDDING!r}; expected "
            f"{' or '.join(_POSITION_EMBEDDINGS)}"
        )
