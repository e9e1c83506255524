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
from ddep.modeling.transformer_decoder import (
    MultiScaleMaskedTransformerDecoder,
    StandardTransformerDecoder,
)
from ddep.modeling.transformer_decoder.attention import MultiheadAttention
from ddep.ops import MSDeformAttn

_DECODERS = (MultiScaleMaskedTransformerDecoder, StandardTransformerDecoder)


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
        mask_logits: (B, Q, h, w).
    """

    padded_size: tuple[int, int] = (0, 0)
    class_logits: Tensor | None = None
    mask_logits: Tensor | None = None
    _feature_sizes: list[tuple[int, int]] = field(default_factory=list)
    # The module and its arguments, in the order of the calls.
    _cross: list[tuple[MultiheadAttention, tuple[Any, ...]]] = field(default_factory=list)
    _deformable: list[tuple[MSDeformAttn, tuple[Any, ...]]] = field(default_factory=list)

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
            allowed = mask[0][image : image + 1, queries] if mask else None
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

    def _start_decoder(self, _: nn.Module, arguments: tuple[Any, ...]) -> None:
        features = arguments[0] if isinstance(arguments[0], list) else [arguments[0]]
        self._feature_sizes = [tuple(feature.shape[-2:]) for feature in features]

    def _end_decoder(self, _: nn.Module, __: tuple[Any, ...], outputs: dict[str, Any]) -> None:
        self.class_logits = outputs.get("pred_logits")
        self.mask_logits = outputs["pred_masks"]

    def _attend(self, module: MultiheadAttention, arguments: tuple[Any, ...]) -> None:
        self._cross.append((module, arguments))

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
        UserError: it has neither a transformer decoder nor a deformable encoder.
    """
    decoders = [module for module in model.modules() if isinstance(module, _DECODERS)]
    deformable = [module for module in model.modules() if isinstance(module, MSDeformAttn)]
    if not decoders and not deformable:
        raise UserError(
            f"attention: {type(model).__name__} has no queries that attend to the image and no "
            "deformable encoder; take a Mask2Former or MaskFormer model"
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
        for module in deformable:
            add(module.register_forward_pre_hook(record._sample))
        yield record


def _cross_attentions(decoder: nn.Module) -> list[MultiheadAttention]:
    """The attention of queries to the image in each layer of ``decoder``."""
    if isinstance(decoder, MultiScaleMaskedTransformerDecoder):
        return [layer.multihead_attn for layer in decoder.transformer_cross_attention_layers]
    return [layer.multihead_attn for layer in decoder.transformer.decoder.layers]
