"""DETR's transformer, which MaskFormer's decoders use.

DETR (Carion et al., 2020, arXiv 2005.12872), appendix A.3: positions are added to queries and keys
in every layer, never to values. A LayerNorm precedes each residual branch (``normalize_before``) or
follows the sum. Images of a batch may be padded to one size: nothing attends to the padding.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from ddep.modeling.activation_checkpoint import checkpointed
from ddep.modeling.position_encoding import (
    padded_sine_position_encoding,
    sine_position_encoding,
)
from ddep.modeling.transformer_decoder.attention import MultiheadAttention
from ddep.modeling.transformer_decoder.layers import reset_parameters


class TransformerEncoderLayer(nn.Module):
    """Self-attention and a feed-forward network.

    Args:
        d_model: channels C.
        nhead: attention heads.
        dim_feedforward: hidden channels of the feed-forward network.
        dropout: rate, on attention weights, on hidden channels and after each branch.
        normalize_before: LayerNorm before each residual branch instead of after the sum.
    """

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int, dropout: float, normalize_before: bool
    ) -> None:
        super().__init__()
        self.self_attn = MultiheadAttention(d_model, nhead, dropout)
        self.linear1 = nn.Linear(d_model, dim_feedforward)
        self.linear2 = nn.Linear(dim_feedforward, d_model)
        self.norm1 = nn.LayerNorm(d_model)
        self.norm2 = nn.LayerNorm(d_model)
        self.dropout = nn.Dropout(dropout)
        self.normalize_before = normalize_before

    def forward(
        self, src: torch.Tensor, pos: torch.Tensor, valid: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Map (B, S, C) to (B, S, C).

        Args:
            src: the pixels.
            pos: (1 or B, S, C), their positions.
            valid: (B, 1, S) bool, false for pixels that nothing attends to; None: there are none.
        """
        if self.normalize_before:
            src = src + self._attend(self.norm1(src), pos, valid)
            return src + self._feed_forward(self.norm2(src))
        src = self.norm1(src + self._attend(src, pos, valid))
        return self.norm2(src + self._feed_forward(src))

    def _attend(
        self, src: torch.Tensor, pos: torch.Tensor, valid: torch.Tensor | None = None
    ) -> torch.Tensor:
        query = src + pos
        return self.dropout(self.self_attn(query, query, src, valid))

    def _feed_forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.dropout(self.linear2(self.dropout(F.relu(self.linear1(x), inplace=True))))


class TransformerDecoderLayer(TransformerEncoderLayer):
    """An encoder layer with attention to a feature map in between; same arguments."""

    def __init__(
        self, d_model: int, nhead: int, dim_feedforward: int, dropout: float, normalize_before: bool
    ) -> None:
        super().__init__(d_model, nhead, dim_feedforward, dropout, normalize_before)
        self.multihead_attn = MultiheadAttention(d_model, nhead, dropout)
        self.norm3 = nn.LayerNorm(d_model)

    def forward(
        self,
        tgt: torch.Tensor,
        memory: torch.Tensor,
        pos: torch.Tensor,
        query_pos: torch.Tensor,
        valid: torch.Tensor | None = None,
    ) -> torch.Tensor:
        """Map queries (B, Q, C) to (B, Q, C).

        Args:
            tgt: the queries.
            memory: the feature map, flattened (B, S, C).
            pos: position of its pixels (1 or B, S, C).
            query_pos: position of the queries (B, Q, C).
            valid: (B, 1, S) bool, false for pixels that nothing attends to; None: there are none.
        """
        if self.normalize_before:
            tgt = tgt + self._attend(self.norm1(tgt), query_pos)
            tgt = tgt + self._attend_to_memory(self.norm2(tgt), memory, pos, query_pos, valid)
            return tgt + self._feed_forward(self.norm3(tgt))
        tgt = self.norm1(tgt + self._attend(tgt, query_pos))
        tgt = self.norm2(tgt + self._attend_to_memory(tgt, memory, pos, query_pos, valid))
        return self.norm3(tgt + self._feed_forward(tgt))

    def _attend_to_memory(
        self,
        tgt: torch.Tensor,
        memory: torch.Tensor,
        pos: torch.Tensor,
        query_pos: torch.Tensor,
        valid: torch.Tensor | None,
    ) -> torch.Tensor:
        return self.dropout(self.multihead_attn(tgt + query_pos, memory + pos, memory, valid))


class TransformerEncoder(nn.Module):
    """A stack of :class:`TransformerEncoderLayer`; arguments as there.

    With ``normalize_before``, a LayerNorm follows the stack. With ``use_checkpoint``, only the
    layers' inputs are kept, and the rest is recomputed in the backward pass.
    """

    def __init__(
        self,
        num_layers: int,
        d_model: int,
        nhead: int,
        dim_feedforward: int,
        dropout: float,
        normalize_before: bool,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.use_checkpoint = use_checkpoint
        self.layers = nn.ModuleList(
            TransformerEncoderLayer(d_model, nhead, dim_feedforward, dropout, normalize_before)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(d_model) if normalize_before else nn.Identity()

    def forward(
        self, src: torch.Tensor, pos: torch.Tensor, valid: torch.Tensor | None = None
    ) -> torch.Tensor:
        """Map (B, S, C) to (B, S, C); arguments as in :meth:`TransformerEncoderLayer.forward`."""
        for layer in self.layers:
            src = checkpointed(layer, src, pos, valid, recompute=self.use_checkpoint)
        return self.norm(src)


class TransformerDecoder(nn.Module):
    """A stack of :class:`TransformerDecoderLayer`; arguments as there."""

    def __init__(
        self,
        num_layers: int,
        d_model: int,
        nhead: int,
        dim_feedforward: int,
        dropout: float,
        normalize_before: bool,
    ) -> None:
        super().__init__()
        self.layers = nn.ModuleList(
            TransformerDecoderLayer(d_model, nhead, dim_feedforward, dropout, normalize_before)
            for _ in range(num_layers)
        )
        self.norm = nn.LayerNorm(d_model)

    def forward(
        self,
        memory: torch.Tensor,
        pos: torch.Tensor,
        query_pos: torch.Tensor,
        valid: torch.Tensor | None = None,
    ) -> list[torch.Tensor]:
        """Compute the queries after each layer, normalised: a list of (B, Q, C).

        They start at zero and differ only by their positions. Arguments as those of
        :meth:`TransformerDecoderLayer.forward`.
        """
        tgt = torch.zeros_like(query_pos)
        outputs = []
        for layer in self.layers:
            tgt = layer(tgt, memory, pos, query_pos, valid)
            outputs.append(self.norm(tgt))
        return outputs


class TransformerEncoderOnly(nn.Module):
    """DETR's encoder on a feature map.

    Args:
        num_encoder_layers: number of layers.
        d_model, nhead, dim_feedforward, dropout, normalize_before: see
            :class:`TransformerEncoderLayer`; ``d_model`` is a multiple of 4.
        use_checkpoint: see :class:`TransformerEncoder`.
    """

    def __init__(
        self,
        *,
        num_encoder_layers: int,
        d_model: int,
        nhead: int,
        dim_feedforward: int,
        dropout: float,
        normalize_before: bool,
        use_checkpoint: bool = False,
    ) -> None:
        super().__init__()
        self.encoder = TransformerEncoder(
            num_encoder_layers,
            d_model,
            nhead,
            dim_feedforward,
            dropout,
            normalize_before,
            use_checkpoint,
        )
        reset_parameters(self)

    def forward(self, src: torch.Tensor) -> torch.Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        memory = self.encoder(_flatten(src), _positions(src))
        return memory.transpose(1, 2).unflatten(2, src.shape[-2:])


class Transformer(nn.Module):
    """DETR's encoder and decoder.

    Args:
        num_encoder_layers, num_decoder_layers: number of layers.
        d_model, nhead, dim_feedforward, dropout, normalize_before: see
            :class:`TransformerEncoderLayer`; ``d_model`` is a multiple of 4.
    """

    def __init__(
        self,
        *,
        num_encoder_layers: int,
        num_decoder_layers: int,
        d_model: int,
        nhead: int,
        dim_feedforward: int,
        dropout: float,
        normalize_before: bool,
    ) -> None:
        super().__init__()
        sizes = (d_model, nhead, dim_feedforward, dropout, normalize_before)
        self.encoder = TransformerEncoder(num_encoder_layers, *sizes)
        self.decoder = TransformerDecoder(num_decoder_layers, *sizes)
        reset_parameters(self)

    def forward(
        self,
        src: torch.Tensor,
        query_embed: torch.Tensor,
        *,
        valid: torch.Tensor | None = None,
        pos: torch.Tensor | None = None,
    ) -> tuple[list[torch.Tensor], torch.Tensor]:
        """Compute the queries after each decoder layer, and the encoded feature map.

        Args:
            src: (B, C, H, W).
            query_embed: (Q, C), the positions of the queries.
            valid: (B, H, W) bool, false in an image's padding; None: no image has padding.
            pos: (1 or B, C, H, W), the positions of pixels; None takes sines and cosines.

        Returns:
            (B, Q, C) for each layer, normalised; (B, C, H, W).
        """
        pos = _positions(src, valid) if pos is None else _flatten(pos)
        allowed = None if valid is None else valid.flatten(1)[:, None]
        memory = self.encoder(_flatten(src), pos, allowed)
        queries = query_embed.expand(src.shape[0], -1, -1)
        outputs = self.decoder(memory, pos, queries, allowed)
        return outputs, memory.transpose(1, 2).unflatten(2, src.shape[-2:])


def _flatten(feature: torch.Tensor) -> torch.Tensor:
    """(B, C, H, W) -> (B, H * W, C)."""
    return feature.flatten(2).transpose(1, 2)


def _positions(feature: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
    """(B, C, H, W) -> (1 or B, H * W, C)."""
    _, channels, height, width = feature.shape
    if valid is not None:
        return _flatten(padded_sine_position_encoding(valid, channels))
    return _flatten(sine_position_encoding(height, width, channels, feature.device))
