"""The instances of one clip, before they are linked with those of other clips."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor


class ClipInstances(NamedTuple):
    """N instances in T frames, on the CPU.

    Attributes:
        class_probabilities: (N, K) float32; with the probability of no object they add up to 1.
        masks: (N, T, h, w), above 0 inside: logits, float32, or bool where clips share no frame.
        embeddings: (N, C) float32; those of one object in two clips have a high cosine.
    """

    class_probabilities: Tensor
    masks: Tensor
    embeddings: Tensor

    @property
    def scores(self) -> Tensor:
        """(N,) float32, the probability of each instance's best class."""
        return self.class_probabilities.amax(1)


@torch.no_grad()
def clip_instances(
    mask_cls: Tensor,
    mask_pred: Tensor,
    embeddings: Tensor,
    *,
    score_threshold: float,
    max_instances: int,
) -> ClipInstances:
    """Choose the queries that have found something.

    Args:
        mask_cls: (Q, K+1) class logits; the last class is no-object.
        mask_pred: (Q, T, h, w) mask logits.
        embeddings: (Q, C), of the queries.
        score_threshold: queries whose best class is less probable are left out, and those whose
            mask is empty in all frames.
        max_instances: of the others, no more than this many are taken.

    Returns:
        The instances, by decreasing probability of their best class.
    """
    probabilities = mask_cls.float().softmax(-1)[:, :-1]
    scores, queries = probabilities.amax(1).sort(descending=True, stable=True)
    queries = queries[scores >= score_threshold]
    is_seen = (mask_pred[queries] > 0).flatten(1).any(1)
    queries = queries[is_seen][:max_instances]
    return ClipInstances(
        probabilities[queries].cpu(),
        mask_pred[queries].float().cpu(),
        embeddings[queries].float().cpu(),
    )
