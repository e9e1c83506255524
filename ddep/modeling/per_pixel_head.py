"""MaskFormer's per-pixel baselines: the same pixel decoder, but a class for every pixel.

MaskFormer (Cheng et al., 2021, arXiv 2107.06278), section 4.1, "Baseline models". The
meta-architecture is detectron2's ``SemanticSegmentor``.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn
from torch.nn import functional as F

from ddep.errors import UserError
from ddep.modeling.mask_former_head import (
    predict_masks,
    rename_version_1,
    transformer_in_channels,
)
from ddep.modeling.pixel_decoder import build_pixel_decoder
from ddep.modeling.transformer_decoder import build_transformer_decoder, is_mask_former


class _PerPixelHead(nn.Module, ABC):
    """The part that both baselines share: loss, upsampling and renaming of old weights.

    Args:
        common_stride: stride of the mask features, and so of the predictions.
        loss_weight: factor on each loss.
        ignore_value: label of pixels that do not count.
    """

    _version = 2

    def __init__(self, *, common_stride: int, loss_weight: float, ignore_value: int) -> None:
        super().__init__()
        self.common_stride = common_stride
        self.loss_weight = loss_weight
        self.ignore_value = ignore_value

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Read what both heads have from MODEL.SEM_SEG_HEAD.

        Raises:
            UserError: the pixel decoder cannot be built.
        """
        head = cfg.MODEL.SEM_SEG_HEAD
        return {
            "pixel_decoder": build_pixel_decoder(cfg, input_shape),
            "common_stride": head.COMMON_STRIDE,
            "loss_weight": head.LOSS_WEIGHT,
            "ignore_value": head.IGNORE_VALUE,
        }

    @abstractmethod
    def layers(self, features: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """Logits (B, K, H/stride, W/stride) of every layer that predicts, the last layer first.

        Args:
            features: name -> (B, channels, H/stride, W/stride).
        """

    def forward(
        self, features: dict[str, torch.Tensor], targets: torch.Tensor | None = None
    ) -> tuple[torch.Tensor | None, dict[str, torch.Tensor]]:
        """Compute losses or logits, as ``SemanticSegmentor`` expects of its head.

        Args:
            features: name -> (B, channels, H/stride, W/stride).
            targets: (B, H, W) int64, classes or ``ignore_value``; in training.

        Returns:
            In training None and the losses: ``loss_sem_seg`` and, of each layer before the last,
            ``loss_sem_seg_<number>``. In evaluation the logits (B, K, H', W') of the last layer and
            no losses; H' and W' are H and W, rounded up to a multiple of the stride.
        """
        logits = self.layers(features)
        if not self.training:
            return self._upsample(logits[0]), {}
        return None, self.losses(logits, targets)

    def losses(self, logits: list[torch.Tensor], targets: torch.Tensor) -> dict[str, torch.Tensor]:
        """The loss of every layer, as :meth:`forward` returns them in training.

        Args:
            logits: from :meth:`layers`.
            targets: (B, H, W) int64, classes or ``ignore_value``.
        """
        names = ["loss_sem_seg", *(f"loss_sem_seg_{i}" for i in range(len(logits) - 1))]
        losses = [self._loss(layer, targets) for layer in logits]
        return dict(zip(names, losses, strict=True))

    def _upsample(self, logits: torch.Tensor) -> torch.Tensor:
        scale = self.common_stride
        return F.interpolate(logits, scale_factor=scale, mode="bilinear", align_corners=False)

    def _loss(self, logits: torch.Tensor, targets: torch.Tensor) -> torch.Tensor:
        """Cross entropy, averaged over the labelled pixels; 0 if there are none."""
        logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
        height, width = targets.shape[-2:]
        logits = self._upsample(logits)[..., :height, :width]
        total = F.cross_entropy(logits, targets, ignore_index=self.ignore_value, reduction="sum")
        labelled = (targets != self.ignore_value).sum().clamp(min=1)
        return self.loss_weight * total / labelled

    def _load_from_state_dict(
        self, state_dict: dict[str, torch.Tensor], prefix: str, local_metadata: dict, *args: Any
    ) -> None:
        """As :meth:`torch.nn.Module._load_from_state_dict`, old names included."""
        rename_version_1(state_dict, prefix, local_metadata)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


@SEM_SEG_HEADS_REGISTRY.register()
class PerPixelBaselineHead(_PerPixelHead):
    """A 1x1 convolution on the mask features.

    Args:
        num_classes: number of classes K.
        pixel_decoder: see :func:`ddep.modeling.pixel_decoder.build_pixel_decoder`.
        mask_dim: channels of its mask features.
        **others: see :class:`_PerPixelHead`.
    """

    @configurable
    def __init__(
        self, *, num_classes: int, pixel_decoder: nn.Module, mask_dim: int, **others: Any
    ) -> None:
        super().__init__(**others)
        self.pixel_decoder = pixel_decoder
        self.predictor = Conv2d(mask_dim, num_classes, kernel_size=1)
        weight_init.c2_msra_fill(self.predictor)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Build the pixel decoder and read the rest from MODEL.SEM_SEG_HEAD.

        Raises:
            UserError: the pixel decoder cannot be built.
        """
        return {
            **super().from_config(cfg, input_shape),
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "mask_dim": cfg.MODEL.SEM_SEG_HEAD.MASK_DIM,
        }

    def layers(self, features: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """As :meth:`_PerPixelHead.layers`; there is one."""
        mask_features, _, _ = self.pixel_decoder(features)
        return [self.predictor(mask_features)]


@SEM_SEG_HEADS_REGISTRY.register()
class PerPixelBaselinePlusHead(_PerPixelHead):
    """MaskFormer's transformer decoder with a query for each class, whose mask is its logits.

    Args:
        pixel_decoder: see :func:`ddep.modeling.pixel_decoder.build_pixel_decoder`.
        transformer_predictor: a transformer decoder without mask classification, of K queries.
        transformer_in_feature: what it attends to, see
            :class:`ddep.modeling.mask_former_head.MaskFormerHead`.
        **others: see :class:`_PerPixelHead`.
    """

    @configurable
    def __init__(
        self,
        *,
        pixel_decoder: nn.Module,
        transformer_predictor: nn.Module,
        transformer_in_feature: str,
        **others: Any,
    ) -> None:
        super().__init__(**others)
        self.pixel_decoder = pixel_decoder
        self.predictor = transformer_predictor
        self.transformer_in_feature = transformer_in_feature

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Build both decoders from MODEL.SEM_SEG_HEAD and MODEL.MASK_FORMER.

        Raises:
            UserError: the number of queries is not the number of classes, the transformer decoder
                is not MaskFormer's, or a decoder cannot be built.
        """
        mask_former, classes = cfg.MODEL.MASK_FORMER, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
        queries = mask_former.NUM_OBJECT_QUERIES
        if queries != classes:
            raise UserError(
                f"MODEL.MASK_FORMER.NUM_OBJECT_QUERIES is {queries}; "
                f"PerPixelBaselinePlusHead needs one for each class: set it to {classes}, the "
                "value of MODEL.SEM_SEG_HEAD.NUM_CLASSES"
            )
        if not is_mask_former(cfg):
            raise UserError(
                "MODEL.SEM_SEG_HEAD.NAME is PerPixelBaselinePlusHead, which needs MaskFormer's "
                "transformer decoder: set MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE to one feature, "
                "such as res5, and TRANSFORMER_DECODER_NAME to auto"
            )
        in_channels = transformer_in_channels(cfg, input_shape)
        return {
            **super().from_config(cfg, input_shape),
            "transformer_predictor": build_transformer_decoder(
                cfg, in_channels, mask_classification=False
            ),
            "transformer_in_feature": mask_former.TRANSFORMER_IN_FEATURE,
        }

    def layers(self, features: dict[str, torch.Tensor]) -> list[torch.Tensor]:
        """As :meth:`_PerPixelHead.layers`; one without deep supervision."""
        outputs = predict_masks(
            features, self.pixel_decoder, self.predictor, self.transformer_in_feature
        )
        return [output["pred_masks"] for output in (outputs, *outputs["aux_outputs"])]


def per_pixel_heads() -> list[str]:
    """The registered heads that classify pixels: those that are called with features and labels."""
    return [
        name
        for name, head in SEM_SEG_HEADS_REGISTRY
        if "targets" in inspect.signature(head.forward).parameters
    ]
