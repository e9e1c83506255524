"""The losses of denoising pretraining, each with its name and its weight.

To add one, compute it in :meth:`DenoisingLoss.forward` and give it a weight, a key of MODEL.DDEP
that ends in ``_WEIGHT``. If it is not averaged over pixels, add the count that it is averaged over
to :meth:`DenoisingLoss.normalisers`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

import torch
from detectron2.config import CfgNode, configurable
from torch import Tensor, nn
from torch.nn import functional as F

from ddep.errors import UserError
from ddep.modeling.denoising_head import MULTI_SCALE_STRIDES, UPSAMPLING

TARGETS = ("noise", "image")
LOSSES = {"l2": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}


class Truth(NamedTuple):
    """What predictions are compared with. Values at padding are arbitrary.

    The image is None where only noise is predicted.
    """

    noise: Tensor  # (B, 3, H, W), standard Gaussian
    clean: Tensor | None  # (B, 3, H, W), the normalised image
    valid: Tensor | None  # (B, 1, H, W), 1 on the image and 0 on padding; None without padding


class DenoisingLoss(nn.Module):
    """The errors of the prediction and, with multi-scale heads, of the small clean images.

    - ``loss_denoise``: of the noise or the image (``MODEL.DDEP.TARGET``), averaged over all pixels
      that are not padding (Brempong et al., 2022, arXiv 2205.11423, section 3).
    - ``loss_denoise_s8``, ``_s16``, ``_s32``: of the clean image averaged over cells of pixels; see
      :func:`cell_loss`.

    All are squared, absolute or Huber errors (``MODEL.DDEP.LOSS``).
    """

    @configurable
    def __init__(
        self, *, target: str, loss: str, denoise_weight: float, scale_weight: float
    ) -> None:
        """
        Args:
            target: what is predicted, ``noise`` or ``image``.
            loss: ``l2``, ``l1`` or ``huber`` (quadratic up to an error of 1).
            denoise_weight: weight of ``loss_denoise``.
            scale_weight: weight of the three scales together, a third for each.

        Raises:
            UserError: the target or loss is unknown, or a weight is negative or not finite.
        """
        super().__init__()
        _check_choice("TARGET", target, TARGETS)
        _check_choice("LOSS", loss, LOSSES)
        check_weight("DENOISE_WEIGHT", denoise_weight)
        check_weight("SCALE_WEIGHT", scale_weight)
        self.target = target
        self.errors = LOSSES[loss]
        self.denoise_weight = denoise_weight
        self.scale_weight = scale_weight

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        ddep = cfg.MODEL.DDEP
        return {
            "target": ddep.TARGET,
            "loss": ddep.LOSS,
            "denoise_weight": ddep.DENOISE_WEIGHT,
            "scale_weight": ddep.SCALE_WEIGHT,
        }

    @staticmethod
    def normalisers(batched_inputs: list[dict[str, Any]]) -> dict[str, float]:
        """What the losses of these images are averaged over: ``pixels``, padding not counted.

        Args:
            batched_inputs: as for the model's ``forward``.
        """
        return {"pixels": sum(x["image"].shape[-2] * x["image"].shape[-1] for x in batched_inputs)}

    def forward(
        self,
        prediction: Tensor,
        scales: Mapping[int, Tensor],
        truth: Truth,
        normalisers: Mapping[str, Tensor],
    ) -> dict[str, Tensor]:
        """Compute the losses, weighted.

        Args:
            prediction: (B, 3, H, W) of the target.
            scales: for each of the strides 8, 16 and 32 the prediction (B, 3, 4H/s, 4W/s) of the
                small clean image, both sides rounded up; empty without multi-scale heads.
            truth: the same dtype as ``prediction``.
            normalisers: the counts of :meth:`normalisers` by name, of all images that are averaged
                over: scalars on the predictions' device.

        Returns:
            Scalars by name.
        """
        pixels = normalisers["pixels"].to(prediction.dtype)
        target = truth.noise if self.target == "noise" else truth.clean
        errors = self.errors(prediction, target, reduction="none")
        if truth.valid is not None:
            errors = errors * truth.valid
        loss = errors.sum() / (3 * pixels)
        losses = {"loss_denoise": self.denoise_weight * loss}
        for stride in sorted(scales):
            small = scales[stride].to(truth.clean.dtype)
            loss = cell_loss(self.errors, small, truth, stride // UPSAMPLING, pixels)
            losses[f"loss_denoise_s{stride}"] = self.scale_weight * loss / len(MULTI_SCALE_STRIDES)
        return losses


def cell_loss(
    errors: Callable[..., Tensor], prediction: Tensor, truth: Truth, cell: int, pixels: Tensor
) -> Tensor:
    """Error against the clean image averaged over square cells of pixels.

    A cell that padding covers in part is the mean of its other pixels, and its error is weighted by
    their share. The same holds for a cell that extends beyond the border of the batch.

    Args:
        errors: one of :data:`LOSSES`.
        prediction: (B, 3, h, w), with ``h * cell >= H`` and ``w * cell >= W``.
        truth: tensors of size H, W.
        cell: side of a cell in pixels.
        pixels: scalar, the number of valid pixels to average over.

    Returns:
        A scalar.
    """
    height, width = prediction.shape[-2:]
    border = (0, width * cell - truth.clean.shape[-1], 0, height * cell - truth.clean.shape[-2])
    if truth.valid is None and not any(border):
        clean = F.avg_pool2d(truth.clean, cell)
        return errors(prediction, clean, reduction="sum") / (3 * pixels / cell**2)
    valid = torch.ones_like(truth.clean[:, :1]) if truth.valid is None else truth.valid
    share = F.avg_pool2d(F.pad(valid, border), cell)
    clean = F.avg_pool2d(F.pad(truth.clean * valid, border), cell)
    # A cell without image pixels has share 0, so any divisor will do.
    clean = clean / share.clamp(min=cell**-2)
    return (share * errors(prediction, clean, reduction="none")).sum() / (3 * pixels / cell**2)


def _check_choice(key: str, value: str, choices: Collection[str]) -> None:
    if value not in choices:
        raise UserError(f"MODEL.DDEP.{key} is {value!r}; expected one of {', '.join(choices)}")


def check_weight(key: str, value: float) -> None:
    """Raise :class:`UserError` unless MODEL.DDEP.``key`` can weight a loss."""
    if not 0 <= value < math.inf:
        raise UserError(f"MODEL.DDEP.{key} is {value!r}; expected a number of at least 0")
