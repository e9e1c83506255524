"""Losses of pixels that learn from pseudo-labels, each averaged over the pixels of its image."""

from __future__ import annotations

import math

from torch import Tensor
from torch.nn import functional as F

from ddep.adaptation.image_means import image_means

# The reverse cross entropy needs the logarithm of labels that are 0: they count as this much.
_SMALLEST_LABEL = 1e-4


def cross_entropy(log_probabilities: Tensor, labels: Tensor, ignore_label: int) -> Tensor:
    """Cross entropy with hard labels.

    Args:
        log_probabilities: (B, K, h, w).
        labels: (B, h, w) int64, classes or ``ignore_label``.
        ignore_label: label of pixels that do not count.

    Returns:
        (B,).
    """
    values = F.nll_loss(log_probabilities, labels, ignore_index=ignore_label, reduction="none")
    return image_means(values, labels != ignore_label)


def reverse_cross_entropy(log_probabilities: Tensor, labels: Tensor, ignore_label: int) -> Tensor:
    """Cross entropy in which label and prediction change places (arXiv 1908.06112).

    ``-sum_k p_k log y_k``, where y_k is 1 for the label and 1e-4 for all other classes: the
    probability of all other classes times ``-log 1e-4``. Wrong labels cost no more than that.

    Args, returns: as :func:`cross_entropy`.
    """
    valid = labels != ignore_label
    index = labels.masked_fill(~valid, 0)[:, None]
    others = 1 - log_probabilities.gather(1, index).squeeze(1).exp()
    return image_means(-math.log(_SMALLEST_LABEL) * others, valid)


def divergence(teacher: Tensor, student: Tensor, valid: Tensor) -> Tensor:
    """Kullback-Leibler divergence from the teacher's to the student's class probabilities, over K.

    ProDA's code also divides it by the number of classes, and its weights are for that.

    Args:
        teacher: probabilities, (B, K, h, w).
        student: logarithms of probabilities, (B, K, h, w).
        valid: (B, h, w) bool, the pixels that count.

    Returns:
        (B,).
    """
    return image_means(F.kl_div(student, teacher, reduction="none").mean(1), valid)


def regulariser(log_probabilities: Tensor, valid: Tensor) -> Tensor:
    """Cross entropy of the uniform distribution with the predicted one, against collapse.

    ``-(sum_k log p_k) / K`` (CRST, arXiv 1908.09822; ProDA, arXiv 2101.10979, section 3.4).

    Args:
        log_probabilities: (B, K, h, w).
        valid: (B, h, w) bool, the pixels that count.

    Returns:
        (B,).
    """
    return image_means(-log_probabilities.mean(1), valid)
