"""Means of class scores over windows, scales and flips, in one buffer."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

# Rows of scores that are handled at once: what is computed on the way to a sum stays small.
_ROWS = 256


class ProbabilitySum:
    """A sum of maps of class probabilities.

    Logits are summed as their softmax, and the mean is given back as its logarithm: the softmax of
    what comes out is the mean of the softmax of what came in.

    Args:
        class_scores: what the scores are, see :attr:`ddep.tasks.Task.class_scores`.
        size: height and width of the sum.
    """

    def __init__(self, class_scores: str, size: tuple[int, int]) -> None:
        self._are_logits = class_scores == "logits"
        self._size = size
        self._sum: Tensor | None = None

    def add(self, scores: Tensor, top: int = 0, left: int = 0, *, flipped: bool = False) -> None:
        """Add ``scores`` (K, h, w) to the part whose upper left corner is at ``top``, ``left``.

        With ``flipped``, left and right are swapped before.
        """
        height, width = scores.shape[-2:]
        if self._sum is None:
            shape = (len(scores), *self._size)
            device = device_with_room(shape, scores.device)
            self._sum = torch.zeros(shape, device=device)
        part = self._sum[:, top : top + height, left : left + width]
        for rows, new in zip(part.split(_ROWS, 1), scores.split(_ROWS, 1), strict=True):
            if self._are_logits:
                new = new.softmax(0)
            rows += (new.flip(-1) if flipped else new).to(rows.device)

    def mean(self, count: int | Tensor, size: tuple[int, int] | None = None) -> Tensor:
        """Divide the sum, which is used up.

        Args:
            count: how many maps were added: one number, or one for each pixel, (H, W).
            size: height and width to resize to, bilinearly.

        Returns:
            (K, *size) float32, probabilities or logits as they came in; on the CPU if they do not
            fit the device.
        """
        mean = self._sum.div_(count.to(self._sum.device) if isinstance(count, Tensor) else count)
        self._sum = None
        if size is not None and tuple(size) != tuple(mean.shape[-2:]):
            mean = mean.to(device_with_room((len(mean), *size), mean.device))
            mean = F.interpolate(mean[None], size=size, mode="bilinear", align_corners=False)[0]
        if self._are_logits:
            mean.clamp_(min=torch.finfo(mean.dtype).tiny).log_()
        return mean


def device_with_room(shape: tuple[int, ...], device: torch.device) -> torch.device:
    """``device``, or the CPU if a float32 tensor would fill more than half of its free memory."""
    if device.type != "cuda":
        return device
    free, _ = torch.cuda.mem_get_info(device)
    free += torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return device if 2 * 4 * torch.Size(shape).numel() <= free else torch.device("cpu")
