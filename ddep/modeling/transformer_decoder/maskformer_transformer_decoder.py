"""MaskFormer's transformer decoder: DETR's decoder on one feature map."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from torch import nn

from ddep.errors import UserError
from ddep.modeling.transformer_decoder.build_transformer_decoder import (
    MULTI_SCALE,
    TRANSFORMER_DECODER_REGISTRY,
)
from ddep.modeling.transformer_decoder.common import common_arguments, input_projection
from ddep.modeling.transformer_decoder.layers import MLP
from ddep.modeling.transformer_decoder.mask_logits import mask_logits
from ddep.modeling.transformer_decoder.transformer import Transformer


@TRANSFORMER_DECODER_REGISTRY.register()
class StandardTransformerDecoder(nn.Module):
    """Queries attend to the whole of one feature map in every layer.

    MaskFormer (Cheng et al., 2021, arXiv 2107.06278), section 3.3, "Transformer module" and
    "Segmentation module".

    Args:
        in_channels: channels of the feature.
        mask_classification: each mask gets a class; false for per-pixel baselines, where the masks
            of K queries are the scores of K classes.
        num_classes: K; "no object" is added as the last class.
        hidden_dim: channels C of the queries, a multiple of 4 and of ``nheads``.
        num_queries: Q.
        nheads: attention heads.
        dropout: rate in the transformer.
        dim_feedforward: hidden channels of the feed-forward networks.
        enc_layers: number of encoder layers that the feature passes through first.
        dec_layers: number of decoder layers.
        pre_norm: LayerNorm before each residual branch instead of after it.
        deep_supervision: predict from every layer, not only from the last.
        mask_dim: channels of the mask features.
        enforce_input_project: a 1x1 projection of the feature even if the channels agree.
    """

    @configurable
    def __init__(
        self,
        in_channels: int,
        mask_classification: bool = True,
        *,
        num_classes: int,
        hidden_dim: int,
        num_queries: int,
        nheads: int,
        dropout: float,
        dim_feedforward: int,
        enc_layers: int,
        dec_layers: int,
        pre_norm: bool,
        deep_supervision: bool,
        mask_dim: int,
        enforce_input_project: bool,
    ) -> None:
        super().__init__()
        self.transformer = Transformer(
            num_encoder_layers=enc_layers,
            num_decoder_layers=dec_layers,
            d_model=hidden_dim,
            nhead=nheads,
            dim_feedforward=dim_feedforward,
            dropout=dropout,
            normalize_before=pre_norm,
        )
        self.num_queries = num_queries
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        self.input_proj = input_projection(in_channels, hidden_dim, enforce_input_project)
        self.mask_classification = mask_classification
        if mask_classification:
            self.class_embed = nn.Linear(hidden_dim, num_classes + 1)
        self.mask_embed = MLP(hidden_dim, hidden_dim, mask_dim, 3)
        self.deep_supervision = deep_supervision

    @classmethod
    def from_config(
        cls, cfg: CfgNode, in_channels: int, mask_classification: bool = True
    ) -> dict[str, Any]:
        """Read the constructor's arguments from MODEL.MASK_FORMER and MODEL.SEM_SEG_HEAD.

        Raises:
            UserError: there are several features to attend to, there are no layers, or the
                channels cannot be divided.
        """
        mask_former = cfg.MODEL.MASK_FORMER
        if mask_former.TRANSFORMER_IN_FEATURE == MULTI_SCALE:
            raise UserError(
                f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE is {MULTI_SCALE!r}; "
                "StandardTransformerDecoder needs one feature, such as res5 or transformer_encoder"
            )
        if mask_former.DEC_LAYERS < 1:
            raise UserError(
                f"MODEL.MASK_FORMER.DEC_LAYERS is {mask_former.DEC_LAYERS}; expected at least 1"
            )
        return {
            **common_arguments(cfg, in_channels, mask_classification),
            "dropout": mask_former.DROPOUT,
            "enc_layers": mask_former.ENC_LAYERS,
            "dec_layers": mask_former.DEC_LAYERS,
            "deep_supervision": mask_former.DEEP_SUPERVISION,
        }

    @property
    def num_predictions(self) -> int:
        """How many predictions training gets: from every layer, or from the last one only."""
        return len(self.transformer.decoder.layers) if self.deep_supervision else 1

    def forward(
        self, feature: torch.Tensor, mask_features: torch.Tensor
    ) -> dict[str, torch.Tensor | list[dict[str, torch.Tensor]]]:
        """Predict Q classes and masks per image.

        Args:
            feature: (B, in_channels, ., .).
            mask_features: (B, mask_dim, H, W).

        Returns:
            ``pred_logits`` (B, Q, K+1), only with ``mask_classification``, and ``pred_masks``
            (B, Q, H, W), both logits, of the last layer; ``aux_outputs``, a list of dicts with the
            same of every layer before it, empty without deep supervision and in evaluation.
        """
        queries_of_layers, _ = self.transformer(self.input_proj(feature), self.query_embed.weight)
        if not (self.deep_supervision and self.training):
            queries_of_layers = queries_of_layers[-1:]
        embeddings = [self.mask_embed(queries) for queries in queries_of_layers]
        predictions = [{"pred_masks": masks} for masks in mask_logits(embeddings, mask_features)]
        if self.mask_classification:
            for prediction, queries in zip(predictions, queries_of_layers, strict=True):
                prediction["pred_logits"] = self.class_embed(queries)
        return {**predictions[-1], "aux_outputs": predictions[:-1]}
