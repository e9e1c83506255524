"""DETR: objects by queries."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.structures import ImageList, Instances
from torch import Tensor, nn
from torchvision.ops import box_convert

from ddep.modeling.box_criterion import BoxCriterion
from ddep.modeling.box_matcher import BoxMatcher
from ddep.modeling.detr_checks import (
    check_detr_config,
    check_mask_head_config,
    mask_features,
)
from ddep.modeling.detr_mask_head import AttentionMaps, EncodedImages, MaskHeadSmallConv
from ddep.modeling.detr_postprocessing import (
    box_instances,
    detr_panoptic_inference,
    threshold_masks,
)
from ddep.modeling.mask_rows import Resize
from ddep.modeling.meta_arch.data_set_classes import check_num_classes, find_thing_ids
from ddep.modeling.meta_arch.detr_mask_losses import summed_mask_losses, target_masks
from ddep.modeling.meta_arch.training_samples import annotations, check_classes
from ddep.modeling.normalisers import average_over_processes
from ddep.modeling.padding import valid_cells
from ddep.modeling.position_encoding import PositionEmbeddingLearned
from ddep.modeling.transformer_decoder.layers import MLP
from ddep.modeling.transformer_decoder.transformer import Transformer
from ddep.modeling.unused_features import zero_of

# The names of the modules that predict masks start so.
MASK_HEAD = ("bbox_attention", "mask_head")
# In evaluation; see Detr._masks_of_image.
_QUERIES_AT_A_TIME = 20


@META_ARCH_REGISTRY.register()
class Detr(nn.Module):
    """Object detection with transformers (Carion et al., 2020, arXiv 2005.12872).

    Queries attend to the encoded last feature of a backbone; each becomes a class, which may be
    no object, and a box, and with a mask head (section 4.4) a mask.
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
        num_heads: int,
        mask_features: Sequence[str] = (),
        freezes_detector: bool = False,
        thing_ids: Collection[int] | None = None,
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
            num_heads: attention heads.
            mask_features: names of three features that masks are refined with, coarse to fine;
                empty: no masks.
            freezes_detector: whether only the mask head learns.
            thing_ids: classes that are things, where others are stuff: instances are things, and
                masks become panoptic segments as well. None: all classes are things.
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
        self.mask_features = tuple(mask_features)
        if mask_features:
            channels = [shapes[name].channels for name in mask_features]
            self.bbox_attention = AttentionMaps(hidden_dim, num_heads)
            self.mask_head = MaskHeadSmallConv(hidden_dim, num_heads, channels)
        self.thing_ids = None if thing_ids is None else frozenset(thing_ids)
        self.criterion = criterion
        self.freezes_detector = freezes_detector
        if freezes_detector:
            for module in self._detector():
                module.requires_grad_(False)
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
        check_mask_head_config(cfg)
        if detr.PANOPTIC_ON:
            check_num_classes(cfg, "MODEL.DETR.NUM_CLASSES")
        backbone = build_backbone(cfg)
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
            "backbone": backbone,
            "transformer": transformer,
            "learned_positions": detr.POSITION_EMBEDDING == "learned",
            "num_classes": detr.NUM_CLASSES,
            "hidden_dim": detr.HIDDEN_DIM,
            "num_queries": detr.NUM_OBJECT_QUERIES,
            "criterion": criterion,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
            "num_heads": detr.NHEADS,
            "mask_features": mask_features(cfg, list(backbone.output_shape())),
            "freezes_detector": bool(detr.FROZEN_WEIGHTS),
            "thing_ids": (
                find_thing_ids(cfg, "MODEL.DETR.PANOPTIC_ON") if detr.PANOPTIC_ON else None
            ),
        }

    @property
    def device(self) -> torch.device:
        return self.pixel_mean.device

    def train(self, mode: bool = True) -> Detr:
        """As :meth:`torch.nn.Module.train`; a frozen detector stays in eval mode."""
        super().train(mode)
        if self.freezes_detector:
            for module in self._detector():
                module.eval()
        return self

    def _detector(self) -> list[nn.Module]:
        """Everything but the mask head."""
        return [child for name, child in self.named_children() if not name.startswith(MASK_HEAD)]

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
    ) -> dict[str, Tensor] | list[dict[str, Any]]:
        """Compute losses in training, objects in evaluation.

        Args:
            batched_inputs: one dict per image: ``image`` (3, H, W), 0..255; in training
                ``instances`` with ``gt_classes`` (T,) int64 and ``gt_boxes`` (T, 4), absolute
                XYXY, and with a mask head ``gt_masks``, :class:`BitMasks` (T, H, W); in evaluation
                ``height`` and ``width``, the size of the results (default: the image's). Images
                are padded to one size, and nothing attends to the padding.
            normalisers: scalars by name that divide the sums of losses in training; None takes the
                :meth:`normalisers` of the batches of all processes, averaged.

        Returns:
            In training a dict of weighted losses; those of classes and boxes are left out if the
            detector is frozen. In evaluation one dict per image with ``instances``: of each query
            ``pred_boxes``, in pixels of the results and not clipped to them, ``pred_classes``, the
            likeliest object, and its probability ``scores``. With a mask head they also have
            ``pred_masks`` (Q, height, width) bool. Where classes are things and stuff, instances
            are of things alone, and with a mask head there is ``panoptic_seg``, see
            :func:`detr_panoptic_inference`.

        Raises:
            UserError: a training image without annotations or with a class out of range.
        """
        images = self._prepare_images(batched_inputs)
        with torch.set_grad_enabled(torch.is_grad_enabled() and not self.freezes_detector):
            features = self.backbone(images.tensor)
            outputs = self.predict(features, images)
        if not self.training:
            return [
                self._results(outputs, number, inputs, images)
                for number, inputs in enumerate(batched_inputs)
            ]
        targets = [self._targets(inputs) for inputs in batched_inputs]
        if normalisers is None:
            normalisers = average_over_processes(self.normalisers(batched_inputs), self.device)
        losses = {}
        if not self.freezes_detector:
            losses = self.criterion(outputs, targets, normalisers)
            losses = {
                name: loss * self.criterion.weight_dict[name] for name, loss in losses.items()
            }
            used = (self.in_feature, *self.mask_features)
            unused = [feature for name, feature in features.items() if name not in used]
            losses["loss_ce"] = losses["loss_ce"] + zero_of(unused)
        if self.mask_features:
            masks = [
                target_masks(inputs, image_size, images)
                for inputs, image_size in zip(batched_inputs, images.image_sizes, strict=True)
            ]
            losses |= self._mask_losses(outputs, targets, torch.cat(masks), normalisers)
        return losses

    def predict(self, features: Mapping[str, Tensor], images: ImageList) -> dict[str, Any]:
        """Predict Q objects per image.

        Args:
            features: of the backbone.
            images: what it saw.

        Returns:
            ``pred_logits`` (B, Q, K+1) and ``pred_boxes`` (B, Q, 4) float32, cxcywh relative to
            the image without padding, of the last layer; ``aux_outputs``, a list of dicts with the
            same of every layer before it, empty without deep supervision and in evaluation; and
            with a mask head ``encoded``, what :meth:`predict_masks` takes.
        """
        feature = self.input_proj(features[self.in_feature])
        cells = feature.shape[-2:]
        valid = valid_cells(images.image_sizes, images.tensor.shape[-2:], cells, self.device)
        queries_of_layers, memory = self.transformer(
            feature,
            self.query_embed.weight,
            valid=valid,
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
        outputs = {**predictions[-1], "aux_outputs": predictions[:-1]}
        if self.mask_features:
            finer = tuple(features[name] for name in self.mask_features)
            outputs["encoded"] = EncodedImages(queries_of_layers[-1], feature, memory, valid, finer)
        return outputs

    def predict_masks(self, encoded: EncodedImages, images: Tensor, queries: Tensor) -> Tensor:
        """Predict the masks of some queries.

        Args:
            encoded: of :meth:`predict`.
            images: (N,) int64, their images.
            queries: (N,) int64, their numbers in the image.

        Returns:
            (N, h, w) float32 logits of the padded image, at the stride of the finest feature.
        """
        chosen = encoded.queries[images, queries]
        maps = self.bbox_attention(chosen, images, encoded.memory, encoded.valid)
        return self.mask_head(encoded.feature, maps, images, encoded.features).float()

    def _mask_losses(
        self,
        outputs: dict[str, Any],
        targets: Sequence[dict[str, Tensor]],
        masks: Tensor,
        normalisers: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Focal and dice loss of the last layer's matched queries; ``masks`` (sum of T, H, W) are
        padded. No other mask is computed: masks of queries do not influence each other."""
        costs, pairs = self.criterion.match([outputs], targets)
        images, queries = pairs.images[0], pairs.queries[0]
        logits = self.predict_masks(outputs["encoded"], images, queries)
        with torch.autocast(logits.device.type, enabled=False):
            loss_mask, loss_dice = summed_mask_losses(logits, masks, pairs.targets[0])
            # NaN where a cost is not finite, as in the criterion.
            loss_mask = loss_mask + (costs * 0).sum()
            number = normalisers["boxes"].float()
            return {"loss_mask": loss_mask / number, "loss_dice": loss_dice / number}

    def _prepare_images(self, batched_inputs: list[dict[str, Any]]) -> ImageList:
        """Normalised images on the model's device, padded to one size."""
        images = [inputs["image"].to(self.device) for inputs in batched_inputs]
        images = [(image - self.pixel_mean) / self.pixel_std for image in images]
        return ImageList.from_tensors(images, self.backbone.size_divisibility)

    def _objects(self, inputs: dict[str, Any]) -> Instances:
        """The objects that a training sample is annotated with, classes checked."""
        instances = annotations(inputs)
        check_classes(instances.gt_classes, inputs, self.num_classes, "MODEL.DETR.NUM_CLASSES")
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
        self, outputs: dict[str, Any], number: int, inputs: dict[str, Any], images: ImageList
    ) -> dict[str, Any]:
        """What :meth:`forward` returns for the image at position ``number`` of the batch."""
        size = images.image_sizes[number]
        output_size = inputs.get("height", size[0]), inputs.get("width", size[1])
        logits = outputs["pred_logits"][number].float()
        instances = box_instances(logits, outputs["pred_boxes"][number], output_size)
        results: dict[str, Any] = {}
        if self.mask_features:
            masks = self._masks_of_image(outputs["encoded"], number)
            to_image = Resize(tuple(images.tensor.shape[-2:]), kept=size)
            if self.thing_ids is not None:
                results["panoptic_seg"] = detr_panoptic_inference(
                    logits, masks, [to_image], output_size, thing_ids=self.thing_ids
                )
            instances.pred_masks = threshold_masks(
                masks, [to_image, Resize(output_size, kept=output_size)]
            )
        if self.thing_ids is not None:
            things = torch.tensor(sorted(self.thing_ids), device=self.device)
            instances = instances[torch.isin(instances.pred_classes, things)]
        return {"instances": instances, **results}

    def _masks_of_image(self, encoded: EncodedImages, number: int) -> Tensor:
        """(Q, h, w) logits, some queries at a time, because of the head's activations."""
        queries = torch.arange(self.num_queries, device=self.device)
        masks = [
            self.predict_masks(encoded, torch.full_like(some, number), some)
            for some in queries.split(_QUERIES_AT_A_TIME)
        ]
        return torch.cat(masks)
