"""Prediction of the encoder's features of the clean image, besides its pixels."""

from __future__ import annotations

from collections.abc import Callable

import torch
from detectron2.config import CfgNode
from detectron2.modeling import Backbone
from torch import Tensor
from torch.nn import functional as F

from ddep.errors import UserError
from ddep.modeling.denoising_head import UPSAMPLING
from ddep.modeling.denoising_loss import check_weight


class CleanFeatures:
    """A frozen encoder's features of the clean image, as a target for the decoder.

    Pixels do not tell the decoder what an image shows; a pretrained encoder's deep features do, but
    coarsely. The encoder sees the clean image enlarged, so that the same features lie on a finer
    grid, and the decoder predicts them from the noisy image at its own size.

    The target is normalised over the channels of each cell, as data2vec (Baevski et al., 2022,
    arXiv 2202.03555, section 3.3) does, and the error squared.
    """

    def __init__(self, feature: str, channels: int, enlargement: int, weight: float) -> None:
        """
        Args:
            feature: the backbone's name of it, such as ``res5``.
            channels: of this feature.
            enlargement: how many times the clean image is enlarged.
            weight: of the loss.
        """
        self.feature = feature
        self.channels = channels
        self.enlargement = enlargement
        self.weight = weight

    @classmethod
    def from_config(cls, cfg: CfgNode, backbone: Backbone) -> CleanFeatures | None:
        """Read MODEL.DDEP; None if FEATURE_WEIGHT is 0.

        Raises:
            UserError: a negative weight, an enlargement below 1, an unknown feature, or an encoder
                that learns.
        """
        ddep = cfg.MODEL.DDEP
        check_weight("FEATURE_WEIGHT", ddep.FEATURE_WEIGHT)
        if not ddep.FEATURE_WEIGHT:
            return None
        shapes = backbone.output_shape()
        if ddep.FEATURE not in shapes:
            raise UserError(
                f"MODEL.DDEP.FEATURE is {ddep.FEATURE!r}; expected one of {', '.join(shapes)}"
            )
        if ddep.FEATURE_ENLARGEMENT < 1:
            raise UserError(
                f"MODEL.DDEP.FEATURE_ENLARGEMENT is {ddep.FEATURE_ENLARGEMENT}; expected at least 1"
            )
        if not ddep.FREEZE_BACKBONE or ddep.DECODER == "fpn":
            raise UserError(
                "MODEL.DDEP.FEATURE_WEIGHT is above 0, which needs an encoder that does not learn; "
                "expected MODEL.DDEP.FREEZE_BACKBONE True and a DECODER other than fpn"
            )
        shape = shapes[ddep.FEATURE]
        return cls(ddep.FEATURE, shape.channels, ddep.FEATURE_ENLARGEMENT, ddep.FEATURE_WEIGHT)

    @torch.no_grad()
    def of(self, encoder: Backbone, clean: Tensor) -> Tensor:
        """The target: (B, channels, h, w) float32, of mean 0 and variance 1 in each cell.

        Args:
            encoder: frozen, in eval mode.
            clean: (B, 3, H, W), normalised.
        """
        enlarged = F.interpolate(
            clean, scale_factor=self.enlargement, mode="bicubic", align_corners=False
        )
        features = encoder(enlarged)[self.feature].float()
        return F.layer_norm(features.movedim(1, -1), (self.channels,)).movedim(-1, 1)

    def loss(
        self,
        head: Callable[[Tensor], Tensor],
        mask_features: Tensor,
        target: Tensor,
        valid: Tensor | None,
        pixels: Tensor,
    ) -> Tensor:
        """The weighted squared error, averaged over the cells of the image, without its padding.

        Args:
            head: linear at each pixel, from the decoder's features to ``channels``. So it can come
                after the mean over each cell, and never sees the full size.
            mask_features: the decoder's, (B, mask_dim, H/4, W/4).
            target: (B, channels, h, w).
            valid: (B, 1, H, W), 1 on the image and 0 on padding; None without padding.
            pixels: scalar, the number of valid pixels to average over.

        Returns:
            A scalar.
        """
        size = target.shape[-2:]
        errors = head(F.adaptive_avg_pool2d(mask_features.float(), size)).float() - target
        errors = errors.square().mean(dim=1, keepdim=True)
        if valid is not None:
            errors = errors * F.adaptive_avg_pool2d(valid.float(), size)
        cell = mask_features[0, 0].numel() * UPSAMPLING**2 / (size[0] * size[1])
        return self.weight * errors.sum() * cell / pixels
