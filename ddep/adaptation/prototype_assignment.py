"""Prototypes, the mean features of classes, and how near the features of pixels are to them."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# The logit of a class that has no prototype: its probability is 0, without infinities.
_UNKNOWN = -1e4


def assign(embeddings: Tensor, prototypes: Tensor, known: Tensor, temperature: float) -> Tensor:
    """The logarithm of ``softmax(-distance / temperature)`` over the prototypes of all classes.

    Distances are Euclidean (ProDA, arXiv 2101.10979, section 3.2).

    Args:
        embeddings: (B, C, h, w).
        prototypes: (K, C) float32.
        known: (K,) bool: which classes have a prototype; the others get probability 0.
        temperature: above 0.

    Returns:
        (B, K, h, w) float32, or float64 if the embeddings are.
    """
    dtype = torch.promote_types(embeddings.dtype, prototypes.dtype)
    pixels, prototypes = embeddings.to(dtype).flatten(2).transpose(1, 2), prototypes.to(dtype)
    # Differences are squared one by one: the formula with products loses digits near a prototype.
    distances = torch.cdist(pixels, prototypes, compute_mode="donot_use_mm_for_euclid_dist")
    logits = (-distances / temperature).masked_fill(~known, _UNKNOWN)
    return logits.log_softmax(-1).transpose(1, 2).unflatten(2, embeddings.shape[-2:])


def rectify(log_assignment: Tensor, probabilities: Tensor, ignore_label: int) -> Tensor:
    """Correct pseudo-labels: the class with the largest product of assignment and probability.

    ProDA, section 3.2; the sum that these products are divided by there changes no class.

    Args:
        log_assignment: (B, K, h, w), of :func:`assign`.
        probabilities: (B, K, h, w), soft pseudo-labels; all 0 where there is none.
        ignore_label: for pixels without a pseudo-label.

    Returns:
        (B, h, w) int64.
    """
    labels = (log_assignment + probabilities.log()).argmax(1)
    return labels.masked_fill(probabilities.sum(1) == 0, ignore_label)


def class_sums(embeddings: Tensor, classes: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Add up the features of each class's pixels.

    Args:
        embeddings: (B, C, h, w).
        classes: (B, h, w) int64; pixels of other values than 0 .. ``num_classes - 1`` are left out.
        num_classes: K.

    Returns:
        Sums (K, C) and numbers of pixels (K,), float64.
    """
    pixels = embeddings.movedim(1, -1).flatten(0, -2).double()
    classes = classes.flatten()
    is_class = (classes >= 0) & (classes < num_classes)
    one_hot = F.one_hot(classes[is_class], num_classes).double()
    return one_hot.T @ pixels[is_class], one_hot.sum(0)
