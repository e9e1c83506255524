"""The products of mask embeddings and mask features: the masks that each layer predicts."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def mask_logits(embeddings: Sequence[Tensor], features: Tensor) -> tuple[Tensor, ...]:
    """Compute the mask logits of several layers.

    Mask2Former's losses look only at the masks that are matched with an object, so most rows of the
    gradient are zero. On the CPU, the backward pass multiplies only the others.

    Args:
        embeddings: L of (B, Q, C), one for each query.
        features: (B, C, H, W), one for each pixel.

    Returns:
        L of (B, Q, H, W), contiguous, of the embeddings' type: the dot product of each query and
        each pixel.
    """
    # Under autocast, embeddings come from linear layers in half precision.
    return _MaskLogits.apply(features.to(embeddings[0].dtype), *embeddings)


class _MaskLogits(torch.autograd.Function):
    """Products of all layers at once, so that the features' gradient is one sum."""

    @staticmethod
    def forward(ctx: Any, features: Tensor, *embeddings: Tensor) -> tuple[Tensor, ...]:
        ctx.set_materialize_grads(False)
        ctx.save_for_backward(features, *embeddings)
        pixels = features.flatten(2)
        size = features.shape[-2:]
        return tuple((embedding @ pixels).unflatten(-1, size) for embedding in embeddings)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        features, *embeddings = ctx.saved_tensors
        layers = [layer for layer, gradient in enumerate(gradients) if gradient is not None]
        # A GPU multiplies all rows sooner than it tells the host which ones are needed.
        whole = features.is_cuda or torch.compiler.is_compiling()
        of_features, of_embeddings = (_all_rows if whole else _nonzero_rows)(
            features.flatten(2),
            [embeddings[layer] for layer in layers],
            [gradients[layer].flatten(2) for layer in layers],
        )
        results: list[Tensor | None] = [None] * len(gradients)
        for layer, gradient in zip(layers, of_embeddings, strict=True):
            results[layer] = gradient
        return of_features.view_as(features), *results


def _all_rows(
    pixels: Tensor, embeddings: Sequence[Tensor], gradients: Sequence[Tensor]
) -> tuple[Tensor, Sequence[Tensor]]:
    """(B, C, S), L of (B, Q, C) and of (B, Q, S) -> gradients of the first and the second."""
    of_pixels = torch.zeros_like(pixels)
    for embedding, gradient in zip(embeddings, gradients, strict=True):
        of_pixels = torch.baddbmm(of_pixels, embedding.mT, gradient)
    return of_pixels, [gradient @ pixels.mT for gradient in gradients]


def _nonzero_rows(
    pixels: Tensor, embeddings: Sequence[Tensor], gradients: Sequence[Tensor]
) -> tuple[Tensor, Sequence[Tensor]]:
    """As :func:`_all_rows`, without the rows (of length S) that are zero."""
    stacked = torch.stack(list(embeddings))  # (L, B, Q, C)
    of_embeddings = torch.zeros_like(stacked)
    of_pixels = torch.empty_like(pixels)
    nonzero = torch.stack([gradient.any(-1) for gradient in gradients])  # (L, B, Q)
    for image in range(len(pixels)):
        layer, query = nonzero[:, image].nonzero(as_tuple=True)
        rows = torch.cat(
            [
                gradient[image, queries]
                for gradient, queries in zip(gradients, nonzero[:, image], strict=True)
            ]
        )
        of_pixels[image] = stacked[layer, image, query].T @ rows
        of_embeddings[layer, image, query] = rows @ pixels[image].T
    return of_pixels, of_embeddings.unbind()
