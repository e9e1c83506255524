"""Instance selective whitening: which covariances of features to remove, and the loss that does.

RobustNet (Choi et al., 2021, arXiv 2103.15597), sections 4.2 and 4.3.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ddep.errors import UserError
from ddep.modeling.kmeans1d import lowest_cluster
from ddep.modeling.normalisers import sum_over_processes


def covariance(features: Tensor) -> Tensor:
    """Covariance of the channels of each image whose channels have mean 0, as after instance norm.

    The paper adds 1e-5 to the diagonal, which nothing here looks at.

    Args:
        features: (B, C, H, W).

    Returns:
        (B, C, C) float32 or wider.
    """
    with torch.autocast(features.device.type, enabled=False):
        flat = features.flatten(2)
        flat = flat.to(torch.promote_types(flat.dtype, torch.float32))
        return flat @ flat.mT / (flat.shape[-1] - 1)


def whitening_loss(covariances: Tensor, mask: Tensor) -> Tensor:
    """Mean absolute covariance of each image where ``mask`` is set.

    Args:
        covariances: (B, C, C).
        mask: (C, C) bool.

    Returns:
        (B,); 0 for an empty mask.
    """
    return (covariances.abs() * mask).sum((1, 2)) / mask.sum().clamp(min=1)


def sensitive(variances: Tensor, clusters: int) -> Tensor:
    """Choose the covariances that change most when only the colours of an image do.

    Args:
        variances: (C, C) float64, of each covariance over an image and its photometric transform.
        clusters: the variances above the diagonal are partitioned into so many by k-means; those in
            the lowest are left out. (The authors' code also gives k-means the zeros that it has
            put on and below the diagonal; the paper does not.)

    Returns:
        (C, C) bool, only above the diagonal.
    """
    above = torch.ones_like(variances, dtype=torch.bool).triu(diagonal=1)
    largest = lowest_cluster(variances[above].cpu().numpy(), clusters)
    return above & (variances > largest)


class SelectiveWhitening:
    """Measures how covariances change with colours, chooses masks, then computes the loss.

    Its phases are steps of training: nothing, measuring, and the loss. A step that was skipped
    because of a NaN measures nothing.
    """

    def __init__(
        self,
        channels: Sequence[int],
        *,
        clusters: int,
        start: int,
        measured_steps: int,
        device: torch.device | str,
    ) -> None:
        """
        Args:
            channels: of each whitening layer.
            clusters: see :func:`sensitive`.
            start: the number of the first step (from 0) with the loss.
            measured_steps: how many steps before it measure.
            device: of the features.
        """
        self._clusters = clusters
        self._start = start
        self._measure_from = start - measured_steps
        self._steps = 0
        self._images = torch.zeros((), dtype=torch.float64, device=device)
        self._variances = [torch.zeros(c, c, dtype=torch.float64, device=device) for c in channels]
        self._masks = [torch.zeros(c, c, dtype=torch.bool, device=device) for c in channels]
        self._has_masks = False
        self._drop_measured()

    @property
    def measures(self) -> bool:
        """Whether this step measures."""
        return not self._has_masks and self._steps >= self._measure_from

    @property
    def has_loss(self) -> bool:
        """Whether this step has the loss."""
        return self._has_masks

    def measure(self, covariances: Sequence[Tensor]) -> None:
        """Add one image.

        Args:
            covariances: of each layer, (2, C, C): the image's and its photometric transform's.
        """
        self._new_images += 1
        for total, pair in zip(self._new_variances, covariances, strict=True):
            total += pair.double().var(dim=0)

    def loss(self, covariances: Sequence[Tensor]) -> Tensor:
        """Mean over images and layers.

        Args:
            covariances: of each layer, (B, C, C).
        """
        layers = zip(covariances, self._masks, strict=True)
        return torch.stack([whitening_loss(found, mask).mean() for found, mask in layers]).mean()

    def finish_step(self, skipped: bool) -> None:
        """Count a step, keep what it measured, and choose the masks if it was the last to measure.

        All processes call this.

        Args:
            skipped: whether the step left the weights as they were, because of a NaN.
        """
        if self.measures and not skipped:
            for total, new in zip(
                (self._images, *self._variances),
                (self._new_images, *self._new_variances),
                strict=True,
            ):
                sum_over_processes(new)
                total += new
        self._drop_measured()
        self._steps += 1
        if not self._has_masks and self._steps >= self._start and self._images > 0:
            self._masks = [sensitive(v / self._images, self._clusters) for v in self._variances]
            self._has_masks = True

    def _drop_measured(self) -> None:
        self._new_images = torch.zeros_like(self._images)
        self._new_variances = [torch.zeros_like(total) for total in self._variances]

    def state_dict(self) -> dict[str, Any]:
        """How far measuring has come, and the masks."""
        return {
            "steps": self._steps,
            "images": self._images,
            "variances": self._variances,
            "masks": self._masks,
            "has_masks": self._has_masks,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`.

        Raises:
            UserError: it is of another ResNet.
        """
        found = [tuple(mask.shape) for mask in state["masks"]]
        expected = [tuple(mask.shape) for mask in self._masks]
        if found != expected:
            raise UserError(
                f"the whitening masks in the checkpoint have the sizes {found}, and the model's "
                f"{expected}; resume with the MODEL.RESNETS that the run was started with"
            )
        self._steps = state["steps"]
        self._has_masks = state["has_masks"]
        device = self._images.device
        self._images = state["images"].to(device, copy=True)
        self._variances = [variances.to(device, copy=True) for variances in state["variances"]]
        self._masks = [mask.to(device, copy=True) for mask in state["masks"]]
