"""Mask2Former's transformer decoder with masked attention."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from torch import nn

from ddep.errors import UserError
from ddep.modeling.position_encoding import sine_position_encoding
from ddep.modeling.transformer_decoder.build_transformer_decoder import (
    MULTI_SCALE,
    TRANSFORMER_DECODER_REGISTRY,
)
from ddep.modeling.transformer_decoder.common import common_arguments, input_projection
from ddep.modeling.transformer_decoder.extra_queries import ExtraQueries
from ddep.modeling.transformer_decoder.layers import (
    MLP,
    CrossAttentionLayer,
    FFNLayer,
    SelfAttentionLayer,
)
from ddep.modeling.transformer_decoder.linked_queries import LinkedQueries
from ddep.modeling.transformer_decoder.mask_logits import mask_logits

Predictions = dict[str, torch.Tensor]


@TRANSFORMER_DECODER_REGISTRY.register()
class MultiScaleMaskedTransformerDecoder(nn.Module):
    """Queries attend to one scale after the other, each only inside its latest mask.

    Mask2Former (Cheng et al., 2022, arXiv 2112.01527), section 3.2.

    Args:
        in_channels: channels of the multi-scale features.
        mask_classification: must be true; each mask gets a class.
        num_classes: K; "no object" is added as the last class.
        hidden_dim: channels C of the queries, a multiple of 4 and of ``nheads``.
        num_queries: Q.
        nheads: attention heads.
        dim_feedforward: hidden channels of the feed-forward networks.
        dec_layers: number of decoder layers.
        pre_norm: LayerNorm before each residual branch instead of after it.
        mask_dim: channels of the mask features.
        enforce_input_project: 1x1 projections of the features even if the channels agree.

    Raises:
        ValueError: ``mask_classification`` is false.
    """

    _version = 2
    num_feature_levels = 3

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
        dim_feedforward: int,
        dec_layers: int,
        pre_norm: bool,
        mask_dim: int,
        enforce_input_project: bool,
    ) -> None:
        super().__init__()
        if not mask_classification:
            raise ValueError("masks without classes are not supported")
        self.num_layers = dec_layers
        self.transformer_self_attention_layers = nn.ModuleList(
            SelfAttentionLayer(hidden_dim, nheads, pre_norm) for _ in range(dec_layers)
        )
        self.transformer_cross_attention_layers = nn.ModuleList(
            CrossAttentionLayer(hidden_dim, nheads, pre_norm) for _ in range(dec_layers)
        )
        self.transformer_ffn_layers = nn.ModuleList(
            FFNLayer(hidden_dim, dim_feedforward, pre_norm) for _ in range(dec_layers)
        )
        self.decoder_norm = nn.LayerNorm(hidden_dim)
        # The initial queries, and their positions in every layer.
        self.num_queries = num_queries
        self.query_feat = nn.Embedding(num_queries, hidden_dim)
        self.query_embed = nn.Embedding(num_queries, hidden_dim)
        # Instead of these two, after link_queries.
        self.linked_queries: LinkedQueries | None = None
        self.level_embed = nn.Embedding(self.num_feature_levels, hidden_dim)
        self.input_proj = nn.ModuleList(
            input_projection(in_channels, hidden_dim, enforce_input_project)
            for _ in range(self.num_feature_levels)
        )
        self.class_embed = nn.Linear(hidden_dim, num_classes + 1)
        self.mask_embed = MLP(hidden_dim, hidden_dim, mask_dim, 3)

    @classmethod
    def from_config(
        cls, cfg: CfgNode, in_channels: int, mask_classification: bool = True
    ) -> dict[str, Any]:
        """Read the constructor's arguments from MODEL.MASK_FORMER and MODEL.SEM_SEG_HEAD.

        Raises:
            UserError: there are not three scales to attend to, there are no layers, or the
                channels cannot be divided.
        """
        mask_former = cfg.MODEL.MASK_FORMER
        if mask_former.TRANSFORMER_IN_FEATURE != MULTI_SCALE:
            raise UserError(
                "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE is "
                f"{mask_former.TRANSFORMER_IN_FEATURE!r}; MultiScaleMaskedTransformerDecoder needs "
                f"{MULTI_SCALE}, or choose StandardTransformerDecoder"
            )
        if len(cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES) < cls.num_feature_levels:
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.IN_FEATURES is {list(cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES)}; "
                f"MultiScaleMaskedTransformerDecoder needs at least {cls.num_feature_levels}"
            )
        if mask_former.DEC_LAYERS < 1:
            raise UserError(
                f"MODEL.MASK_FORMER.DEC_LAYERS is {mask_former.DEC_LAYERS}; expected at least 1, "
                "for the predictions of the queries themselves"
            )
        return {
            **common_arguments(cfg, in_channels, mask_classification),
            # DEC_LAYERS counts predictions, and the queries themselves make the first.
            "dec_layers": mask_former.DEC_LAYERS - 1,
        }

    @property
    def num_predictions(self) -> int:
        """How many predictions training gets: from the queries themselves and every layer."""
        return self.num_layers + 1

    def forward(
        self,
        multi_scale_features: list[torch.Tensor],
        mask_features: torch.Tensor,
        extra_queries: ExtraQueries | None = None,
    ) -> dict[str, torch.Tensor | list[Predictions]]:
        """Predict Q classes and masks per image.

        Args:
            multi_scale_features: 3 maps (B, in_channels, ., .), coarse to fine.
            mask_features: (B, mask_dim, H, W).
            extra_queries: follow the learned queries, and count among the Q of the results. Their
                positions are zero. What is predicted of padding means nothing.

        Returns:
            ``pred_logits`` (B, Q, K+1) and ``pred_masks`` (B, Q, H, W), both logits, of the last
            layer; ``queries`` (B, Q, C), as the last layer leaves them, and ``embeddings``
            (B, Q, C), the same after ``decoder_norm``; ``aux_outputs``, a list of dicts with logits
            of the queries themselves and of every layer but the last, empty in evaluation.
        """
        sizes = [feature.shape[-2:] for feature in multi_scale_features]
        values = self.project(multi_scale_features)
        keys = [
            value + flatten_pixels(sine_position_encoding(*size, value.shape[-1], value.device))
            for value, size in zip(values, sizes, strict=True)
        ]
        resized = [resized_features(mask_features, size) for size in sizes[: self.num_layers]]
        return self.decode(keys, values, resized, mask_features, extra_queries)

    def project(self, multi_scale_features: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        """Bring features to the queries' channels: (B, in_channels, h, w) -> (B, h * w, C) each.

        They are the values of cross-attention.
        """
        return [
            flatten_pixels(projection(feature) + embedding[:, None, None])
            for feature, projection, embedding in zip(
                multi_scale_features, self.input_proj, self.level_embed.weight, strict=True
            )
        ]

    def decode(
        self,
        keys: Sequence[torch.Tensor],
        values: Sequence[torch.Tensor],
        resized: Sequence[torch.Tensor],
        mask_features: torch.Tensor,
        extra_queries: ExtraQueries | None = None,
    ) -> dict[str, torch.Tensor | list[Predictions]]:
        """Run the layers.

        Args:
            keys, values: 3 of (B, S, C), coarse to fine, with and without position encoding.
            resized: of each scale that a layer attends to, the mask features of its pixels,
                (B, mask_dim, S).
            mask_features: (B, mask_dim, H, W).
            extra_queries: see :meth:`forward`.

        Returns:
            As :meth:`forward`.
        """
        queries, query_pos = (
            each.expand(mask_features.shape[0], -1, -1) for each in self._initial_queries()
        )
        allowed = None
        if extra_queries is not None:
            content, valid = extra_queries
            # Nobody attends to padding.
            allowed = F.pad(valid, (queries.shape[1], 0), value=True)[:, None]
            queries = torch.cat([queries, content.to(queries.dtype)], dim=1)
            query_pos = F.pad(query_pos, (0, 0, 0, content.shape[1]))

        normalised = [self.decoder_norm(queries)]
        embeddings = [self.mask_embed(normalised[0])]
        for layer in range(self.num_layers):
            level = layer % self.num_feature_levels
            queries = self.transformer_cross_attention_layers[layer](
                queries,
                keys[level],
                values[level],
                attention_mask(embeddings[-1], resized[level]),
                query_pos,
            )
            queries = self.transformer_self_attention_layers[layer](queries, query_pos, allowed)
            queries = self.transformer_ffn_layers[layer](queries)
            normalised.append(self.decoder_norm(queries))
            embeddings.append(self.mask_embed(normalised[-1]))
        if not self.training:
            normalised, embeddings = normalised[-1:], embeddings[-1:]
        predictions = [
            {"pred_logits": classes, "pred_masks": masks}
            for classes, masks in zip(
                self.class_embed(torch.stack(normalised)).unbind(),
                mask_logits(embeddings, mask_features),
                strict=True,
            )
        ]
        return {
            **predictions[-1],
            "queries": queries,
            "embeddings": normalised[-1],
            "aux_outputs": predictions[:-1],
        }

    def link_queries(self, tokens: Callable[[], torch.Tensor], channels: int) -> None:
        """Make the queries of an encoder's learnable tokens, instead of learning them here.

        Args:
            tokens, channels: see :class:`LinkedQueries`; there are as many tokens as queries.
        """
        self.linked_queries = LinkedQueries(tokens, channels, self.query_feat.embedding_dim)
        del self.query_feat, self.query_embed

    def _initial_queries(self) -> tuple[torch.Tensor, torch.Tensor]:
        """The queries before the first layer and their positions, both (Q, C)."""
        if self.linked_queries is not None:
            return self.linked_queries()
        return self.query_feat.weight, self.query_embed.weight

    def _load_from_state_dict(
        self, state_dict: dict[str, torch.Tensor], prefix: str, local_metadata: dict, *args: Any
    ) -> None:
        """Rename ``static_query`` of version-1 checkpoints to ``query_feat``."""
        if local_metadata.get("version", 1) < 2:
            old, new = f"{prefix}static_query.", f"{prefix}query_feat."
            for key in [key for key in state_dict if key.startswith(old)]:
                state_dict[new + key.removeprefix(old)] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


@torch.no_grad()
def resized_features(mask_features: torch.Tensor, size: tuple[int, int]) -> torch.Tensor:
    """Resize mask features, bilinearly, to the features that are attended to.

    Resizing is linear: products with resized features are the resized masks.

    Args:
        mask_features: (B, C, H, W).
        size: (h, w).

    Returns:
        (B, C, h * w), without gradient.
    """
    # Each channel as an image: for small outputs, PyTorch copies images of many channels first.
    channels = mask_features.flatten(0, 1)[:, None]
    resized = F.interpolate(channels, size=size, mode="bilinear", align_corners=False)
    return resized.view(*mask_features.shape[:2], -1)


@torch.no_grad()
def attention_mask(embeddings: torch.Tensor, features: torch.Tensor) -> torch.Tensor:
    """Where each query may attend, given its mask: equation 3 of Mask2Former.

    A query attends where its mask's probability is at least 0.5, that is, where the logit is not
    negative. A query whose mask is empty at this size attends everywhere.

    Args:
        embeddings: (B, Q, C), the mask embedding of each query.
        features: (B, C, S), the mask features of each pixel.

    Returns:
        (B, Q, S) bool, true where attention is allowed.
    """
    forbidden = embeddings @ features.to(embeddings.dtype) < 0
    return ~forbidden | forbidden.all(dim=-1, keepdim=True)


def flatten_pixels(feature: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) -> (B, H * W, C), contiguous."""
    return feature.flatten(2).transpose(1, 2).contiguous()
