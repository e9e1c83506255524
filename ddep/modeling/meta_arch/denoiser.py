"""Decoder denoising pretraining: the model that predicts the noise in an image."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.structures import ImageList
from torch import Tensor, nn

from ddep.errors import UserError
from ddep.modeling.denoising_head import MULTI_SCALE_STRIDES, UPSAMPLING, DenoisingHead
from ddep.modeling.normalisers import average_over_processes
from ddep.modeling.pixel_decoder import build_pixel_decoder
from ddep.noise import check_formulation, recover_image, recover_noise

TARGETS = ("noise", "image")
LOSSES = {"l2": F.mse_loss, "l1": F.l1_loss, "huber": F.huber_loss}


@META_ARCH_REGISTRY.register()
class DenoisingPretrainer(nn.Module):
    """Backbone, pixel decoder and denoising head, trained on unlabelled noisy images.

    Decoder Denoising Pretraining (Brempong et al., 2022, arXiv 2205.11423, section 3): the encoder
    keeps its pretrained weights and the decoder learns to predict the Gaussian noise that was added
    to the image. Backbone and pixel decoder have the names that they have in ``MaskFormer``, so
    fine-tuning loads the same checkpoint.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        pixel_decoder: nn.Module,
        denoising_head: DenoisingHead,
        freeze_backbone: bool,
        formulation: str,
        target: str,
        loss: str,
        size_divisibility: int,
    ) -> None:
        """
        Args:
            backbone: maps (B, 3, H, W) to a dict of features.
            pixel_decoder: maps them to ``mask_features`` at stride 4, the
                encoder's features, and the scales of stride 32, 16 and 8.
            denoising_head: maps ``mask_features`` to the prediction (B, 3, H, W). If it has
                multi-scale heads, they are trained too.
            freeze_backbone: the backbone gets no gradients and stays in eval mode.
            formulation: how noise was added, ``scaled`` or ``additive`` (see :mod:`ddep.noise`).
            target: what is predicted, ``noise`` or ``image``.
            loss: ``l2``, ``l1`` or ``huber`` (with its threshold at 1).
            size_divisibility: images are padded to a multiple of this.

        Raises:
            UserError: unknown formulation, target or loss.
        """
        super().__init__()
        if target not in TARGETS:
            raise UserError(
                f"MODEL.DDEP.TARGET is {target!r}; expected one of {', '.join(TARGETS)}"
            )
        if loss not in LOSSES:
            raise UserError(f"MODEL.DDEP.LOSS is {loss!r}; expected one of {', '.join(LOSSES)}")
        self.backbone = backbone
        self.sem_seg_head = nn.ModuleDict({"pixel_decoder": pixel_decoder})
        self.denoising_head = denoising_head
        self.freeze_backbone = freeze_backbone
        self.formulation = check_formulation(formulation)
        self.target = target
        self.loss = LOSSES[loss]
        self.size_divisibility = size_divisibility
        if freeze_backbone:
            self.backbone.requires_grad_(False)
        self.train()

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        ddep = cfg.MODEL.DDEP
        if cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE != UPSAMPLING:
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.COMMON_STRIDE is {cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE}; "
                f"denoising needs {UPSAMPLING}"
            )
        backbone = build_backbone(cfg)
        if ddep.MULTI_SCALE:
            _check_scales(cfg, backbone)
        size_divisibility = cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY
        if size_divisibility < 0:
            size_divisibility = backbone.size_divisibility
        return {
            "backbone": backbone,
            "pixel_decoder": build_pixel_decoder(cfg, backbone.output_shape()),
            "denoising_head": DenoisingHead(cfg),
            "freeze_backbone": ddep.FREEZE_BACKBONE,
            "formulation": ddep.NOISE,
            "target": ddep.TARGET,
            "loss": ddep.LOSS,
            "size_divisibility": size_divisibility,
        }

    @property
    def device(self) -> torch.device:
        return next(self.denoising_head.parameters()).device

    def train(self, mode: bool = True) -> DenoisingPretrainer:
        """As :meth:`torch.nn.Module.train`; a frozen backbone stays in eval mode."""
        super().train(mode)
        if self.freeze_backbone:
            self.backbone.eval()
        return self

    @staticmethod
    def normalisers(batched_inputs: list[dict[str, Any]]) -> dict[str, float]:
        """What the losses of ``batched_inputs`` are averaged over: ``pixels``, their number."""
        return {"pixels": sum(x["image"].shape[-2] * x["image"].shape[-1] for x in batched_inputs)}

    def forward(
        self,
        batched_inputs: list[dict[str, Any]],
        normalisers: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            batched_inputs: one dict an image, as the denoising mapper makes them: ``image``
                (3, H, W) float32, normalised and noisy; ``noise`` (3, H, W), the standard Gaussian
                noise in it; ``sigma``, the size of the noise. The images may differ in size.
            normalisers: ``pixels``, a scalar that the sums of the pixels' losses are divided by in
                training; None: the number of pixels in the batches of all processes, averaged.
                Gradients of parts of a batch add up to those of the whole if the parts are padded
                to one size: padding takes part in the features.

        Returns:
            In training, ``loss_denoise``: the loss averaged over all pixels of the batch that are
            not padding. With multi-scale heads also ``loss_denoise_s8``, ``loss_denoise_s16`` and
            ``loss_denoise_s32``, with their weight of 1/3 each.

            In evaluation, one dict an image with the estimates ``noise`` and ``denoised``, both
            (3, H, W) float32; ``denoised`` is normalised as the input is. The one that is not
            predicted follows from the one that is.
        """
        images = self._pad(batched_inputs, "image")
        sigma = torch.tensor([x["sigma"] for x in batched_inputs], device=self.device)
        sigma = sigma.view(-1, 1, 1, 1)
        with torch.no_grad() if self.freeze_backbone else nullcontext():
            features = self.backbone(images.tensor)
        decoder = self.sem_seg_head["pixel_decoder"]
        mask_features, _, multi_scale_features = decoder(features)
        # Sizes that are not a multiple of the features' stride: those are rounded up.
        height, width = images.tensor.shape[-2:]
        prediction = self.denoising_head(mask_features)[..., :height, :width].to(
            images.tensor.dtype
        )
        if not self.training:
            return self._estimates(images, prediction, sigma)

        noise = self._pad(batched_inputs, "noise").tensor
        clean = recover_image(images.tensor, noise, sigma, self.formulation)
        valid = _valid_pixels(images)
        target = noise if self.target == "noise" else clean
        pixel_losses = self.loss(prediction, target, reduction="none")
        if normalisers is None:
            normalisers = average_over_processes(self.normalisers(batched_inputs), self.device)
        pixels = normalisers["pixels"].to(pixel_losses.dtype)
        losses = {"loss_denoise": (pixel_losses * valid).sum() / (3 * pixels)}
        if self.denoising_head.multi_scale:
            predictions = self.denoising_head.predict_scales(multi_scale_features)
            for stride in MULTI_SCALE_STRIDES:
                cell = stride // UPSAMPLING
                loss = scale_loss(predictions[stride].to(clean.dtype), clean, valid, cell, pixels)
                losses[f"loss_denoise_s{stride}"] = loss / len(MULTI_SCALE_STRIDES)
        return losses

    def _pad(self, batched_inputs: list[dict[str, Any]], key: str) -> ImageList:
        tensors = [x[key].to(self.device) for x in batched_inputs]
        return ImageList.from_tensors(tensors, self.size_divisibility)

    def _estimates(
        self, images: ImageList, prediction: Tensor, sigma: Tensor
    ) -> list[dict[str, Tensor]]:
        if self.target == "noise":
            noise = prediction
            denoised = recover_image(images.tensor, noise, sigma, self.formulation)
        else:
            denoised = prediction
            noise = recover_noise(images.tensor, denoised, sigma, self.formulation)
        return [
            {"noise": noise[i, :, :height, :width], "denoised": denoised[i, :, :height, :width]}
            for i, (height, width) in enumerate(images.image_sizes)
        ]


def _check_scales(cfg: CfgNode, backbone: Backbone) -> None:
    """All pixel decoders make their scales from the coarsest features."""
    names, shapes = cfg.MODEL.SEM_SEG_HEAD.IN_FEATURES, backbone.output_shape()
    strides = sorted(shapes[name].stride for name in names if name in shapes)
    if tuple(strides[-len(MULTI_SCALE_STRIDES) :]) != MULTI_SCALE_STRIDES:
        raise UserError(
            f"MODEL.DDEP.MULTI_SCALE is True, but MODEL.SEM_SEG_HEAD.IN_FEATURES {list(names)} "
            f"have strides {', '.join(map(str, strides)) or 'that are unknown'}; expected "
            f"{', '.join(map(str, MULTI_SCALE_STRIDES))} to be the largest"
        )


def scale_loss(
    prediction: Tensor, clean: Tensor, valid: Tensor, cell: int, pixels: Tensor
) -> Tensor:
    """Mean squared error against the clean image averaged over cells of pixels.

    A cell that padding covers in part is the mean of its other pixels, and counts by their share.
    So does a cell that reaches over the border of the batch.

    Args:
        prediction: (B, 3, h, w), with ``h * cell >= H`` and ``w * cell >= W``.
        clean: (B, 3, H, W), the clean image.
        valid: (B, 1, H, W), 1 where the image is and 0 where padding is.
        cell: side of a cell in pixels.
        pixels: scalar, the number of valid pixels to average over.

    Returns:
        A scalar.
    """
    height, width = prediction.shape[-2:]
    border = (0, width * cell - clean.shape[-1], 0, height * cell - clean.shape[-2])
    share = F.avg_pool2d(F.pad(valid, border), cell)
    # Where there is no image at all, the share is 0 and any divisor does.
    target = F.avg_pool2d(F.pad(clean * valid, border), cell) / share.clamp(min=cell**-2)
    return (share * (prediction - target) ** 2).sum() / (3 * pixels / cell**2)


def _valid_pixels(images: ImageList) -> Tensor:
    """(B, 1, H, W) float: 1 where the image is, 0 where padding is."""
    valid = torch.zeros_like(images.tensor[:, :1])
    for i, (height, width) in enumerate(images.image_sizes):
        valid[i, :, :height, :width] = 1
    return valid
