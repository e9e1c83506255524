"""Record what a model's queries and pixels attend to, without touching its outputs.

The attention modules keep no weights: fused kernels never have them in memory. Hooks store what
the modules are given, and the weights are computed from that, for the queries that are asked for.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from ddep.errors import UserError
from ddep.modeling.meta_arch import Detr
from ddep.modeling.transformer_decoder import (
    MultiScaleMaskedTransformerDecoder,
    StandardTransformerDecoder,
)
from ddep.modeling.transformer_decoder.attention import MultiheadAttention
from ddep.modeling.transformer_decoder.transformer import Transformer, TransformerEncoderOnly
from ddep.ops import MSDeformAttn

_DECODERS = (MultiScaleMaskedTransformerDecoder, StandardTransformerDecoder)
_ENCODERS = (Transformer, TransformerEncoderOnly)


@dataclass(frozen=True)
class CrossAttention:
    """What some queries attend to in one layer of the transformer decoder.

    Attributes:
        weights: (N, h, w) float, one map for each query over the padded image, the mean over the
            heads; each sums to 1.
        allowed: (N, h, w) bool, where each query may attend (masked attention).
    """

    weights: Tensor
    allowed: Tensor


@dataclass(frozen=True)
class SamplingPoints:
    """Where one pixel samples in one layer of the deformable encoder.

    Attributes:
        locations: (heads, levels, points, 2) float, (x, y) as fractions of the padded image's width
            and height; points may lie outside.
        weights: (heads, levels, points) float; each head's sum to 1.
    """

    locations: Tensor
    weights: Tensor


@dataclass
class AttentionRecord:
    """What :func:`record_attention` stores of the model's latest call; it grows with the image.

    Attributes:
        padded_size: (H, W) of the images as the model saw them, padding included.
        class_logits: (B, Q, K+1); None if the queries have no classes of their own.
        mask_logits: (B, Q, h, w); None if the queries predict no masks, and for :class:`Detr`.
        boxes: (B, Q, 4), cxcywh relative to the image; of :class:`Detr` only.
    """

    padded_size: tuple[int, int] = (0, 0)
    class_logits: Tensor | None = None
    mask_logits: Tensor | None = None
    boxes: Tensor | None = None
    _feature_sizes: list[tuple[int, int]] = field(default_factory=list)
    # The module and its arguments, in the order of the calls.
    _cross: list[tuple[MultiheadAttention, tuple[Any, ...]]] = field(default_factory=list)
    _deformable: list[tuple[MSDeformAttn, tuple[Any, ...]]] = field(default_factory=list)
    _encoded_size: tuple[int, int] = (0, 0)
    _among_pixels: list[tuple[MultiheadAttention, tuple[Any, ...]]] = field(default_factory=list)

    @torch.no_grad()
    def cross_attention(self, queries: Tensor, image: int = 0) -> list[CrossAttention]:
        """Compute what queries attend to.

        Args:
            queries: (N,) int64, their numbers.
            image: position in the batch.

        Returns:
            One for each layer of the transformer decoder, the first layer first.
        """
        layers = []
        for layer, (module, (query, key, _, *mask)) in enumerate(self._cross):
            size = self._feature_sizes[layer % len(self._feature_sizes)]
            allowed = _mask_of(mask, image, queries)
            weights = module.attention_weights(
                query[image : image + 1, queries], key[image : image + 1], allowed
            )
            if allowed is None:
                allowed = torch.ones_like(weights[:, 0], dtype=torch.bool)
            layers.append(
                CrossAttention(
                    weights.mean(1)[0].unflatten(-1, size), allowed[0].unflatten(-1, size)
                )
            )
        return layers

    @torch.no_grad()
    def self_attention(self, at: tuple[float, float], image: int = 0) -> list[Tensor]:
        """Compute what the pixel that covers a place attends to, in an encoder whose pixels attend
        to all others.

        Args:
            at: (x, y) as fractions of the padded image's width and height, in [0, 1).
            image: position in the batch.

        Returns:
            For each layer, the first layer first, (h, w) float: the mean over the heads, which sums
            to 1. Empty if there is no such encoder.
        """
        height, width = self._encoded_size
        pixel = torch.tensor([int(at[1] * height) * width + int(at[0] * width)])
        maps = []
        for module, (query, key, _, *mask) in self._among_pixels:
            weights = module.attention_weights(
                query[image : image + 1, pixel],
                key[image : image + 1],
                _mask_of(mask, image, pixel),
            )
            maps.append(weights.mean(1)[0, 0].view(height, width))
        return maps

    @torch.no_grad()
    def sampling_points(
        self, at: tuple[float, float], image: int = 0, level: int = -1
    ) -> list[SamplingPoints]:
        """Compute where the pixel of a level that covers a place samples.

        Args:
            at: (x, y) as fractions of the padded image's width and height, in [0, 1).
            image: position in the batch.
            level: of the encoder's feature maps, coarse to fine; the finest by default.

        Returns:
            One for each layer of the deformable encoder, the first layer first.
        """
        layers = []
        for module, (query, reference_points, _, shapes, starts, *_) in self._deformable:
            height, width = shapes[level].tolist()
            row, column = int(at[1] * height), int(at[0] * width)
            pixel = int(starts[level]) + row * width + column
            locations, weights = module.sampling_points(
                query[image : image + 1, pixel : pixel + 1],
                reference_points[image : image + 1, pixel : pixel + 1],
                shapes,
            )
            layers.append(SamplingPoints(locations[0, 0], weights[0, 0]))
        return layers

    def level_sizes(self) -> list[tuple[int, int]]:
        """(h, w) of the deformable encoder's feature maps, coarse to fine."""
        if not self._deformable:
            return []
        return [tuple(size) for size in self._deformable[0][1][3].tolist()]

    def covered(self, image_size: Sequence[int]) -> tuple[float, float]:
        """The parts of the padded height and width that an image (height, width) covers."""
        height, width = (
            length / padded for length, padded in zip(image_size, self.padded_size, strict=True)
        )
        return height, width

    def _start(self, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        self.padded_size = tuple(arguments[0].shape[-2:])
        self._cross.clear()
        self._deformable.clear()
        self._among_pixels.clear()

    def _start_encoder(self, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        self._encoded_size = tuple(arguments[0].shape[-2:])

    def _start_decoder(self, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        features = arguments[0] if isinstance(arguments[0], list) else [arguments[0]]
        self._feature_sizes = [tuple(feature.shape[-2:]) for feature in features]

    def _end_decoder(self, _: nn.Module, __: tuple[Any, ...], outputs: dict[str, Any]) -> None:
        self.class_logits = outputs.get("pred_logits")
        self.mask_logits = outputs["pred_masks"]

    def _end_classes(self, _: nn.Module, __: tuple[Any, ...], logits: Tensor) -> None:
        self.class_logits = logits

    def _end_boxes(self, _: nn.Module, __: tuple[Any, ...], boxes: Tensor) -> None:
        self.boxes = boxes.float().sigmoid()

    def _attend(self, module: MultiheadAttention, arguments: tuple[Any, ...]) -> None:
        self._cross.append((module, arguments))

    def _attend_among_pixels(self, module: MultiheadAttention, arguments: tuple[Any, ...]) -> None:
        self._among_pixels.append((module, arguments))

    def _sample(self, module: MSDeformAttn, arguments: tuple[Any, ...]) -> None:
        self._deformable.append((module, arguments))


@contextmanager
def record_attention(model: nn.Module) -> Iterator[AttentionRecord]:
    """Record the attention of ``model`` while the context lasts.

    Outputs are the same to the bit, and no hook is left behind.

    Args:
        model: in evaluation, with a ``backbone`` that is called with the images (B, 3, H, W); not
            compiled.

    Raises:
        UserError: it has neither a transformer decoder nor an encoder whose pixels attend.
    """
    decoders = [module for module in model.modules() if isinstance(module, _DECODERS)]
    deformable = [module for module in model.modules() if isinstance(module, MSDeformAttn)]
    encoders = [
        module
        for module in model.modules()
        if isinstance(module, _ENCODERS) and len(module.encoder.layers)
    ]
    if not decoders and not deformable and not encoders:
        raise UserError(
            f"attention: {type(model).__name__} has no queries that attend to the image and no "
            "encoder whose pixels attend to others; take a Mask2Former, MaskFormer or DETR model"
        )
    record = AttentionRecord()
    with ExitStack() as hooks:
        add = hooks.enter_context
        add(model.backbone.register_forward_pre_hook(record._start))
        for decoder in decoders:
            add(decoder.register_forward_pre_hook(record._start_decoder))
            add(decoder.register_forward_hook(record._end_decoder))
            for module in _cross_attentions(decoder):
                add(module.register_forward_pre_hook(record._attend))
        if isinstance(model, Detr):
            add(model.transformer.register_forward_pre_hook(record._start_decoder))
            add(model.class_embed.register_forward_hook(record._end_classes))
            add(model.bbox_embed.register_forward_hook(record._end_boxes))
            for layer in model.transformer.decoder.layers:
                add(layer.multihead_attn.register_forward_pre_hook(record._attend))
        for encoder in encoders:
            add(encoder.register_forward_pre_hook(record._start_encoder))
            for layer in encoder.encoder.layers:
                add(layer.self_attn.register_forward_pre_hook(record._attend_among_pixels))
        for module in deformable:
            add(module.register_forward_pre_hook(record._sample))
        yield record


def _cross_attentions(decoder: nn.Module) -> list[MultiheadAttention]:
    """The attention of queries to the image in each layer of ``decoder``."""
    if isinstance(decoder, MultiScaleMaskedTransformerDecoder):
        return [layer.multihead_attn for layer in decoder.transformer_cross_attention_layers]
    return [layer.multihead_attn for layer in decoder.transformer.decoder.layers]


def _mask_of(mask: Sequence[Tensor | None], image: int, queries: Tensor) -> Tensor | None:
    """Where queries of an image may attend, (1, N, S), from what follows an attention's values: a
    mask for each query or for all of them, or nothing."""
    if not mask or mask[0] is None:
        return None
    allowed = mask[0][image : image + 1]
    return allowed.expand(-1, len(queries), -1) if allowed.shape[1] == 1 else allowed[:, queries]
