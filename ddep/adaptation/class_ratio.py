"""A prior on how much of a target image each class covers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from ddep.modeling.normalisers import sum_over_processes


class ClassRatioPrior(nn.Module):
    """Each class should cover a part of every target image: ADVENT, arXiv 1811.12833, section 3.3.

    The loss of an image is ``sum_c max(0, mu * p_c - q_c)``: p_c is class c's share of the labelled
    pixels, q_c its mean probability in the image. ADVENT counts the labels before training; here
    they are counted as training sees them, and a step uses what was counted before it.

    Attributes:
        pixels: (K,) float64, labelled pixels of each class so far.
    """

    def __init__(self, num_classes: int, mu: float) -> None:
        """
        Args:
            num_classes: K.
            mu: from 0, no prior, to 1, the shares of the labelled images.
        """
        super().__init__()
        self.mu = mu
        self.register_buffer("pixels", torch.zeros(num_classes, dtype=torch.float64))
        self._gathered = torch.zeros(num_classes, dtype=torch.float64)

    def gather(self, source: Sequence[dict[str, Any]]) -> None:
        """Count the labels of samples that have ``instances`` with classes and masks."""
        for sample in source:
            instances = sample["instances"]
            sizes = instances.gt_masks.sum(dim=(1, 2), dtype=torch.float64)
            self._gathered.index_add_(0, instances.gt_classes.cpu(), sizes.cpu())

    def loss(self, log_probabilities: Tensor) -> Tensor:
        """
        Args:
            log_probabilities: (K, H, W) of a target image.
        """
        shares = self.pixels / self.pixels.sum().clamp(min=1)
        covered = log_probabilities.exp().mean(dim=(1, 2))
        return (self.mu * shares.to(covered.dtype) - covered).relu().sum()

    def finish_step(self, skipped: bool) -> None:
        """Add what all processes gathered in a step, unless it was skipped."""
        counts, self._gathered = self._gathered, torch.zeros_like(self._gathered)
        if skipped:
            return
        counts = counts.to(self.pixels.device)
        sum_over_processes(counts)
        self.pixels += counts
