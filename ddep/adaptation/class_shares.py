"""The running share of each class in what a teacher predicts for target images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ddep.modeling.normalisers import sum_over_processes


class ClassShares(nn.Module):
    """The moving average of each class's mean probability (DA-SAC, arXiv 2105.00097).

    A step uses what was gathered before it, so that parts of a batch and processes agree; DA-SAC's
    code also includes the step's own views.

    Attributes:
        shares: (K,) float64. Their initial value has no meaning to the average: the first step
            replaces it.
        steps: int64, how many steps there were.
    """

    def __init__(self, num_classes: int, momentum: float, initial: float) -> None:
        """
        Args:
            num_classes: K.
            momentum: how much of a share is kept at each step, in [0, 1].
            initial: each class's share before the first step.
        """
        super().__init__()
        self.momentum = momentum
        self.register_buffer("shares", torch.full((num_classes,), initial, dtype=torch.float64))
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._gathered: list[Tensor] = []

    def gather(self, of_images: Tensor) -> None:
        """Add images of this step, (B, K): the mean probability of each class in each."""
        self._gathered.append(of_images.detach().double())

    def finish_step(self, skipped: bool) -> None:
        """Move the shares to the mean over the step's images in all processes, unless skipped."""
        gathered, self._gathered = self._gathered, []
        if skipped:
            return
        images = torch.cat(gathered)
        total = torch.cat([images.sum(0), images.new_tensor([len(images)])])
        sum_over_processes(total)
        mean = total[:-1] / total[-1]
        moved = self.momentum * self.shares + (1 - self.momentum) * mean
        self.shares.copy_(torch.where(self.steps == 0, mean, moved))
        self.steps += 1
