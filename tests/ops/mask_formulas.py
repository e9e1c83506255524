"""Mask losses and matching costs in float64, one pair at a time, which the tests compare with."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def sample(maps: Tensor, points: Tensor) -> Tensor:
    """Sample (..., h, w) at points (P, 2): (..., P), zeros outside."""
    flat = maps.double().reshape(1, -1, *maps.shape[-2:])
    values = F.grid_sample(flat, 2 * points.double()[None, None] - 1, align_corners=False)
    return values.reshape(*maps.shape[:-2], -1)


def cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    return (F.softplus(-logits) * labels + F.softplus(logits) * (1 - labels)).mean(-1)


def focal(logits: Tensor, labels: Tensor) -> Tensor:
    """RetinaNet (arXiv 1708.02002), equation 5: gamma 2, alpha 0.25; ``labels`` are 0 or 1."""
    right = torch.where(labels > 0, logits, -logits)
    weight = torch.where(labels > 0, 0.25, 0.75)
    return (-weight * (1 - right.sigmoid()) ** 2 * F.logsigmoid(right)).mean(-1)


def dice(logits: Tensor, labels: Tensor) -> Tensor:
    p = logits.sigmoid()
    return 1 - (2 * (p * labels).sum(-1) + 1) / (p.sum(-1) + labels.sum(-1) + 1)


def losses(
    mask_logits: list[Tensor],
    images: Tensor,
    queries: Tensor,
    masks: Tensor,
    targets: Tensor,
    points: Tensor | None,
) -> tuple[Tensor, Tensor]:
    """Losses of pairs, (L, N) each: cross entropy and dice at points, or focal and dice."""
    rows = []
    for layer, logits in enumerate(mask_logits):
        for n in range(images.shape[1]):
            predicted = logits[images[layer, n], queries[layer, n]].double()
            true = masks[targets[layer, n]].double()
            if points is None:
                size = tuple(true.shape)
                predicted = F.interpolate(predicted[None, None], size=size, mode="bilinear")
                predicted, true = predicted.flatten(), true.flatten()
                rows.append((focal(predicted, true), dice(predicted, true)))
            else:
                predicted = sample(predicted, points[layer, n])
                true = sample(true, points[layer, n])
                rows.append((cross_entropy(predicted, true), dice(predicted, true)))
    first, second = (torch.stack(column).view(images.shape) for column in zip(*rows, strict=True))
    return first, second


def costs(
    mask_logits: list[Tensor], masks: Tensor, num_targets: list[int], points: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Costs of the pairs of each image, (L, Q, T) each; without points, masks have logits' size."""
    columns = []
    image_of = [image for image, count in enumerate(num_targets) for _ in range(count)]
    for image, mask in zip(image_of, masks.double(), strict=True):
        logits = torch.stack([layer[image].double() for layer in mask_logits])  # (L, Q, h, w)
        if points is None:
            logits, mask = logits.flatten(-2), mask.flatten()
            columns.append((focal(logits, mask), dice(logits, mask)))
        else:
            logits, mask = sample(logits, points[image]), sample(mask, points[image])
            columns.append((cross_entropy(logits, mask), dice(logits, mask)))
    first, second = (torch.stack(part, -1) for part in zip(*columns, strict=True))
    return first, second
