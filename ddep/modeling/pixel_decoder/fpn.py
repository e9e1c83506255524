"""MaskFormer's pixel decoders: an FPN, with or without a transformer encoder on top."""

from __future__ import annotations

import math
from typing import Any

import fvcore.nn.weight_init as weight_init
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import Conv2d, ShapeSpec, get_norm
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn

from ddep.errors import UserError
from ddep.modeling.pixel_decoder.build_pixel_decoder import check_in_features
from ddep.modeling.transformer_decoder.transformer import TransformerEncoderOnly


@SEM_SEG_HEADS_REGISTRY.register()
class BasePixelDecoder(nn.Module):
    """A feature pyramid with a 3x3 convolution, normalisation and ReLU on every level.

    MaskFormer (Cheng et al., 2021, arXiv 2107.06278), section 4.1, "Pixel decoder".

    Args:
        input_shape: name -> channels and stride of the features.
        conv_dim: channels C of all levels.
        mask_dim: channels of the mask features.
        norm: detectron2's name of the normalisation ("GN"); "" is none.
    """

    @configurable
    def __init__(
        self, input_shape: dict[str, ShapeSpec], *, conv_dim: int, mask_dim: int, norm: str
    ) -> None:
        super().__init__()
        fine_to_coarse = sorted(input_shape, key=lambda name: input_shape[name].stride)
        # Levels are numbered from fine to coarse, but computed from coarse to fine.
        self.levels = list(enumerate(fine_to_coarse, start=1))[::-1]
        for number, name in reversed(self.levels[1:]):
            add_fpn_level(self, number, input_shape[name].channels, conv_dim, norm)
        coarsest = _fusing_conv(input_shape[fine_to_coarse[-1]].channels, conv_dim, norm)
        weight_init.c2_xavier_fill(coarsest)
        self.add_module(f"layer_{len(fine_to_coarse)}", coarsest)
        self.mask_features = Conv2d(conv_dim, mask_dim, kernel_size=3, padding=1)
        weight_init.c2_xavier_fill(self.mask_features)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Read the constructor's arguments from MODEL.SEM_SEG_HEAD.

        Raises:
            UserError: a feature is missing, none has the requested stride, the channels cannot be
                divided, or there are no activations to recompute.
        """
        head = cfg.MODEL.SEM_SEG_HEAD
        if cfg.MODEL.DDEP.CHECKPOINT_PIXEL_DECODER and cls is BasePixelDecoder:
            raise UserError(
                "MODEL.DDEP.CHECKPOINT_PIXEL_DECODER is True, but BasePixelDecoder has no "
                "transformer encoder, whose activations would be computed again; set it to False"
            )
        check_in_features("MODEL.SEM_SEG_HEAD.IN_FEATURES", head.IN_FEATURES, list(input_shape))
        finest = min(input_shape[name].stride for name in head.IN_FEATURES)
        if finest != head.COMMON_STRIDE:
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.COMMON_STRIDE is {head.COMMON_STRIDE}, but the finest of "
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES has stride {finest}, and so have the masks of "
                f"{cls.__name__}; set it to {finest} or choose other features"
            )
        if head.NORM == "GN" and head.CONVS_DIM % 32:
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.CONVS_DIM is {head.CONVS_DIM}; expected a multiple of 32 "
                "(GroupNorm)"
            )
        return {
            "input_shape": {name: input_shape[name] for name in head.IN_FEATURES},
            "conv_dim": head.CONVS_DIM,
            "mask_dim": head.MASK_DIM,
            "norm": head.NORM,
        }

    def forward_features(
        self, features: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None, list[torch.Tensor]]:
        """Decode a backbone's features.

        Args:
            features: name -> (B, channels, H/stride, W/stride).

        Returns:
            Mask features (B, mask_dim, ., .) at the finest stride; None, because there is no
            encoder; and the three (or fewer) coarsest scales (B, C, ., .), coarse to fine.
        """
        (number, name), *finer = self.levels
        scales = [getattr(self, f"layer_{number}")(features[name])]
        for number, name in finer:
            lateral = getattr(self, f"adapter_{number}")(features[name])
            above = F.interpolate(scales[-1], size=lateral.shape[-2:], mode="nearest")
            scales.append(getattr(self, f"layer_{number}")(lateral + above))
        return self.mask_features(scales[-1]), None, scales[:3]

    def forward(
        self, features: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor | None, list[torch.Tensor]]:
        """See :meth:`forward_features`, which is Mask2Former's name for it."""
        return self.forward_features(features)


@SEM_SEG_HEADS_REGISTRY.register()
class TransformerEncoderPixelDecoder(BasePixelDecoder):
    """An FPN whose coarsest feature first passes through a transformer encoder.

    MaskFormer (arXiv 2107.06278), section 4.1, uses it with ResNets for panoptic segmentation.

    Args:
        input_shape, conv_dim, mask_dim, norm: see :class:`BasePixelDecoder`; ``conv_dim`` is a
            multiple of 4 and of ``transformer_nheads``.
        transformer_dropout, transformer_nheads, transformer_dim_feedforward,
            transformer_enc_layers, transformer_pre_norm: options of the encoder.
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
        transformer_pre_norm: bool,
        conv_dim: int,
        mask_dim: int,
        norm: str,
        use_checkpoint: bool = False,
    ) -> None:
        coarsest = max(input_shape, key=lambda name: input_shape[name].stride)
        encoded = ShapeSpec(channels=conv_dim, stride=input_shape[coarsest].stride)
        super().__init__(
            {**input_shape, coarsest: encoded}, conv_dim=conv_dim, mask_dim=mask_dim, norm=norm
        )
        self.encoded_feature = coarsest
        self.input_proj = Conv2d(input_shape[coarsest].channels, conv_dim, kernel_size=1)
        weight_init.c2_xavier_fill(self.input_proj)
        self.transformer = TransformerEncoderOnly(
            num_encoder_layers=transformer_enc_layers,
            d_model=conv_dim,
            nhead=transformer_nheads,
            dim_feedforward=transformer_dim_feedforward,
            dropout=transformer_dropout,
            normalize_before=transformer_pre_norm,
            use_checkpoint=use_checkpoint,
        )

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """As :meth:`BasePixelDecoder.from_config`; reads the encoder's from MODEL.MASK_FORMER."""
        mask_former, head = cfg.MODEL.MASK_FORMER, cfg.MODEL.SEM_SEG_HEAD
        if head.CONVS_DIM % math.lcm(4, mask_former.NHEADS):
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.CONVS_DIM is {head.CONVS_DIM}; expected a multiple of 4 "
                f"(position encoding) and of MODEL.MASK_FORMER.NHEADS {mask_former.NHEADS}"
            )
        return {
            **super().from_config(cfg, input_shape),
            "transformer_dropout": mask_former.DROPOUT,
            "transformer_nheads": mask_former.NHEADS,
            "transformer_dim_feedforward": mask_former.DIM_FEEDFORWARD,
            "transformer_enc_layers": head.TRANSFORMER_ENC_LAYERS,
            "transformer_pre_norm": mask_former.PRE_NORM,
            "use_checkpoint": cfg.MODEL.DDEP.CHECKPOINT_PIXEL_DECODER,
        }

    def forward_features(
        self, features: dict[str, torch.Tensor]
    ) -> tuple[torch.Tensor, torch.Tensor, list[torch.Tensor]]:
        """As :meth:`BasePixelDecoder.forward_features`, with the encoded feature (B, C, ., .)."""
        encoded = self.transformer(self.input_proj(features[self.encoded_feature]))
        mask_features, _, scales = super().forward_features(
            {**features, self.encoded_feature: encoded}
        )
        return mask_features, encoded, scales


def add_fpn_level(
    decoder: nn.Module, number: int, in_channels: int, conv_dim: int, norm: str
) -> None:
    """Give ``decoder`` the two convolutions that join a finer feature to the pyramid.

    They are ``adapter_<number>``, 1x1, for the feature, and ``layer_<number>``, 3x3 with ReLU, for
    its sum with the coarser level.
    """
    lateral = Conv2d(
        in_channels,
        conv_dim,
        kernel_size=1,
        bias=not norm,
        norm=get_norm(norm, conv_dim),
    )
    output = _fusing_conv(conv_dim, conv_dim, norm)
    weight_init.c2_xavier_fill(lateral)
    weight_init.c2_xavier_fill(output)
    decoder.add_module(f"adapter_{number}", lateral)
    decoder.add_module(f"layer_{number}", output)


def _fusing_conv(in_channels: int, conv_dim: int, norm: str) -> Conv2d:
    return Conv2d(
        in_channels,
        conv_dim,
        kernel_size=3,
        padding=1,
        bias=not norm,
        norm=get_norm(norm, conv_dim),
        activation=torch.relu_,
    )
