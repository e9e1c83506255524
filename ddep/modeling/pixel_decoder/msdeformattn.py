"""Mask2Former's pixel decoder: a deformable transformer encoder with an FPN on top."""

from __future__ import annotations

import math
from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn

from ddep.errors import UserError
from ddep.modeling.pixel_decoder.build_pixel_decoder import check_in_features
from ddep.modeling.pixel_decoder.deformable_encoder import MSDeformAttnTransformerEncoderOnly
from ddep.modeling.pixel_decoder.fpn import add_fpn_level


@SEM_SEG_HEADS_REGISTRY.register()
class MSDeformAttnPixelDecoder(nn.Module):
    """Multi-scale deformable attention on coarse features; an FPN adds the finer ones.

    Mask2Former (Cheng et al., 2022, arXiv 2112.01527), section 4.1, "Pixel decoder".

    Args:
        input_shape: name -> channels and stride of the features.
        transformer_dropout, transformer_nheads, transformer_dim_feedforward,
            transformer_enc_layers: options of the deformable encoder.
        conv_dim: channels C of all scales, a multiple of 32 and of ``transformer_nheads``.
        mask_dim: channels of the mask features.
        norm: detectron2's name of the FPN's normalisation ("GN"); "" is none.
        transformer_in_features: the features that enter the encoder.
        common_stride: stride of the mask features; the FPN adds the levels down to it.
        use_checkpoint: recompute the encoder layers' activations in the backward pass.
    """

    @configurable
    def __init__(
        self,
        input_shape: dict[str, ShapeSpec],
        *,
        transformer_dropout: float,
        transformer_nheads: int,
        transformer_dim_feedforward: int,
        transformer_enc_layers: int,
        conv_dim: int,
        mask_dim: int,
        norm: str,
        transformer_in_features: list[str],
        common_stride: int,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        fine_to_coarse = sorted(input_shape, key=lambda name: input_shape[name].stride)
        # Coarse to fine, the order of computation and of Mask2Former's parameters.
        self.transformer_in_features = [
            name for name in reversed(fine_to_coarse) if name in transformer_in_features
        ]
        self.input_proj = nn.ModuleList()
        for name in self.transformer_in_features:
            projection = nn.Conv2d(input_shape[name].channels, conv_dim, kernel_size=1)
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)
            self.input_proj.append(nn.Sequential(projection, nn.GroupNorm(32, conv_dim)))
        self.transformer = MSDeformAttnTransformerEncoderOnly(
            d_model=conv_dim,
            nhead=transformer_nheads,
            num_encoder_layers=transformer_enc_layers,
            dim_feedforward=transformer_dim_feedforward,
            dropout=transformer_dropout,
            num_feature_levels=len(self.transformer_in_features),
            enc_n_points=4,
            use_checkpoint=use_checkpoint,
        )
        self.mask_features = Conv2d(conv_dim, mask_dim, kernel_size=1)
        weight_init.c2_xavier_fill(self.mask_features)

        encoded_stride = input_shape[self.transformer_in_features[-1]].stride
        fpn_features = [
            name
            for name in fine_to_coarse
            if common_stride <= input_shape[name].stride < encoded_stride
        ]
        # Layers are numbered from fine to coarse, but computed from coarse to fine.
        self.fpn_levels = list(enumerate(fpn_features, start=1))[::-1]
        for number, name in self.fpn_levels:
            add_fpn_level(self, number, input_shape[name].channels, conv_dim, norm)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Read the constructor's arguments from MODEL.SEM_SEG_HEAD and MODEL.MASK_FORMER.

        Raises:
            UserError: a feature is missing, none is fine enough, or the channels cannot be divided.
        """
        head = cfg.MODEL.SEM_SEG_HEAD
        nheads = cfg.MODEL.MASK_FORMER.NHEADS
        check_in_features("MODEL.SEM_SEG_HEAD.IN_FEATURES", head.IN_FEATURES, list(input_shape))
        check_in_features(
            "MODEL.SEM_SEG_HEAD.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES",
            head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES,
            head.IN_FEATURES,
        )
        finest = min(input_shape[name].stride for name in head.IN_FEATURES)
        if finest > head.COMMON_STRIDE:
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.COMMON_STRIDE is {head.COMMON_STRIDE}, but the finest of "
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES has stride {finest}; add a finer feature"
            )
        if head.CONVS_DIM % math.lcm(32, nheads):
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.CONVS_DIM is {head.CONVS_DIM}; expected a multiple of 32 "
                f"(GroupNorm) and of MODEL.MASK_FORMER.NHEADS {nheads}"
            )
        return {
            "input_shape": {name: input_shape[name] for name in head.IN_FEATURES},
            "transformer_dropout": cfg.MODEL.MASK_FORMER.DROPOUT,
            "transformer_nheads": nheads,
            # Mask2Former's fixed value; DIM_FEEDFORWARD is the transformer decoder's.
            "transformer_dim_feedforward": 1024,
            "transformer_enc_layers": head.TRANSFORMER_ENC_LAYERS,
            "conv_dim": head.CONVS_DIM,
            "mask_dim": head.MASK_DIM,
            "norm": head.NORM,
            "transformer_in_features": head.DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES,
            "common_stride": head.COMMON_STRIDE,
            "use_checkpoint": cfg.MODEL.DDEP.CHECKPOINT_PIXEL_DECODER,
        }

    def forward_features(
        self, features: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """Decode a backbone's features.

        Autocast is off here, as in Mask2Former, because sampling locations need float32.

        Args:
            features: name -> (B, channels, H/stride, W/stride).

        Returns:
            Mask features (B, mask_dim, H/4, W/4) if ``common_stride`` is 4; the coarsest encoded
            feature (B, C, H/32, W/32); and the three coarsest scales (B, C, ., .), coarse to fine:
            strides 32, 16 and 8. All have the parameters' dtype.
        """
        like = self.mask_features.weight
        with torch.autocast(like.device.type, enabled=False):
            projected = [
                projection(features[name].to(like.dtype))
                for projection, name in zip(
                    self.input_proj, self.transformer_in_features, strict=True
                )
            ]
            scales = self.transformer(projected)
            for number, name in self.fpn_levels:
                lateral = getattr(self, f"adapter_{number}")(features[name].to(like.dtype))
                above = F.interpolate(
                    scales[-1], size=lateral.shape[-2:], mode="bilinear", align_corners=False
                )
                scales.append(getattr(self, f"layer_{number}")(lateral + above))
            return self.mask_features(scales[-1]), scales[0], scales[:3]

    def forward(
        self, features: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """See :meth:`forward_features`, which is Mask2Former's name for it."""
        return self.forward_features(features)
