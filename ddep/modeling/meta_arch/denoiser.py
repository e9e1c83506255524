"""Decoder denoising pretraining: the model that predicts the noise in an image."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY, Backbone, build_backbone
from detectron2.structures import ImageList
from torch import Tensor, nn

from ddep.errors import UserError
from ddep.modeling.clean_features import CleanFeatures
from ddep.modeling.denoising_decoder import DenoisingDecoder, build_denoising_decoder
from ddep.modeling.denoising_head import UPSAMPLING, DenoisingHead
from ddep.modeling.denoising_loss import DenoisingLoss, Truth
from ddep.modeling.encoder import freeze_encoder
from ddep.modeling.normalisers import average_over_processes
from ddep.noise import check_formulation, recover_image, recover_noise


@META_ARCH_REGISTRY.register()
class DenoisingPretrainer(nn.Module):
    """Backbone, decoder and denoising head, trained on unlabelled noisy images.

    Decoder Denoising Pretraining (Brempong et al., 2022, arXiv 2205.11423, section 3): the encoder
    keeps its pretrained weights and the decoder learns to predict the Gaussian noise that was added
    to the image. The decoder is a pixel decoder, an FPN or DeepLabV3+'s. Encoder and decoder have
    the same names as in the model that is fine-tuned, which can therefore load the checkpoint.
    """

    @configurable
    def __init__(
        self,
        *,
        backbone: Backbone,
        decoder: DenoisingDecoder,
        denoising_head: DenoisingHead,
        denoising_loss: DenoisingLoss,
        freeze_backbone: bool,
        formulation: str,
        size_divisibility: int,
        clean_features: CleanFeatures | None = None,
    ) -> None:
        """
        Args:
            backbone: maps (B, 3, H, W) to a dict of features.
            decoder: maps them to features at stride 4, and at 32, 16 and 8.
            denoising_head: maps those at stride 4 to the prediction (B, 3, H, W). If it has
                multi-scale heads, they are also trained.
            denoising_loss: compares predictions with the truth; decides what is predicted.
            freeze_backbone: the encoder gets no gradients and stays in eval mode. It is the
                backbone without an FPN; see :mod:`ddep.checkpoint.groups`.
            formulation: how noise was added, ``scaled`` or ``additive`` (see :mod:`ddep.noise`).
            size_divisibility: images are padded to a multiple of this.
            clean_features: which features of the clean image are predicted; None predicts none.

        Raises:
            UserError: unknown formulation.
        """
        super().__init__()
        self.backbone = backbone
        self.sem_seg_head = decoder
        self.denoising_head = denoising_head
        self.denoising_loss = denoising_loss
        self.formulation = check_formulation(formulation)
        self.size_divisibility = size_divisibility
        self.clean_features = clean_features
        if freeze_backbone:
            freeze_encoder(self)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        ddep = cfg.MODEL.DDEP
        if cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE != UPSAMPLING:
            raise UserError(
                f"MODEL.SEM_SEG_HEAD.COMMON_STRIDE is {cfg.MODEL.SEM_SEG_HEAD.COMMON_STRIDE}; "
                f"denoising needs {UPSAMPLING}"
            )
        backbone = build_backbone(cfg)
        decoder = build_denoising_decoder(cfg, backbone)
        clean_features = CleanFeatures.from_config(cfg, backbone)
        size_divisibility = cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY
        if size_divisibility < 0:
            size_divisibility = backbone.size_divisibility
        return {
            "backbone": backbone,
            "decoder": decoder,
            "denoising_head": DenoisingHead(
                mask_dim=decoder.mask_dim,
                scale_dim=decoder.scale_dim if ddep.MULTI_SCALE else None,
                feature_dim=clean_features.channels if clean_features else None,
            ),
            "denoising_loss": DenoisingLoss(cfg),
            "freeze_backbone": ddep.FREEZE_BACKBONE,
            "formulation": ddep.NOISE,
            "size_divisibility": size_divisibility,
            "clean_features": clean_features,
        }

    @property
    def device(self) -> torch.device:
        return next(self.denoising_head.parameters()).device

    def normalisers(self, batched_inputs: list[dict[str, Any]]) -> dict[str, float]:
        """What the losses of ``batched_inputs`` are averaged over, by name."""
        return self.denoising_loss.normalisers(batched_inputs)

    def forward(
        self,
        batched_inputs: list[dict[str, Any]],
        normalisers: Mapping[str, Tensor] | None = None,
    ) -> dict[str, Tensor] | list[dict]:
        """
        Args:
            batched_inputs: one dict per image, as the denoising mapper makes them: ``image``
                (3, H, W) float32, normalised and noisy; ``noise`` (3, H, W), the standard Gaussian
                noise in it; ``sigma``, the size of the noise. The images may differ in size.
            normalisers: scalars by name that divide the sums of losses in training; None takes the
                :meth:`normalisers` of the batches of all processes, averaged. Gradients of parts of
                a batch add up to those of the whole if the parts are padded to one size, because
                padding influences the features.

        Returns:
            In training a dict of weighted losses, see :class:`DenoisingLoss`.

            In evaluation, one dict per image with the estimates ``noise`` and ``denoised``, both
            (3, H, W) float32; ``denoised`` is normalised like the input. One is predicted, and the
            other is computed from it.
        """
        images = self._pad(batched_inputs, "image")
        sigma = torch.tensor([x["sigma"] for x in batched_inputs], device=self.device)
        sigma = sigma.view(-1, 1, 1, 1)
        mask_features, multi_scale_features = self.sem_seg_head(self.backbone(images.tensor))
        # Features round sizes up to a multiple of their stride.
        height, width = images.tensor.shape[-2:]
        prediction = self.denoising_head(mask_features)[..., :height, :width].to(
            images.tensor.dtype
        )
        if not self.training:
            return self._estimates(images, prediction, sigma)

        noise = self._pad(batched_inputs, "noise").tensor
        clean = None
        if self._needs_clean_image:
            clean = recover_image(images.tensor, noise, sigma, self.formulation)
        truth = Truth(noise, clean, _valid_pixels(images))
        scales = {}
        if self.denoising_head.multi_scale:
            scales = self.denoising_head.predict_scales(multi_scale_features)
        if normalisers is None:
            normalisers = average_over_processes(self.normalisers(batched_inputs), self.device)
        losses = self.denoising_loss(prediction, scales, truth, normalisers)
        if self.clean_features is not None:
            losses["loss_features"] = self.clean_features.loss(
                self.denoising_head.features,
                mask_features,
                self.clean_features.of(self.backbone, truth.clean),
                truth.valid,
                normalisers["pixels"],
            )
        return losses

    @property
    def _needs_clean_image(self) -> bool:
        return (
            self.denoising_loss.target == "image"
            or bool(self.denoising_head.multi_scale)
            or self.clean_features is not None
        )

    def _pad(self, batched_inputs: list[dict[str, Any]], key: str) -> ImageList:
        tensors = [x[key].to(self.device) for x in batched_inputs]
        return ImageList.from_tensors(tensors, self.size_divisibility)

    def _estimates(
        self, images: ImageList, prediction: Tensor, sigma: Tensor
    ) -> list[dict[str, Tensor]]:
        if self.denoising_loss.target == "noise":
            noise = prediction
            denoised = recover_image(images.tensor, noise, sigma, self.formulation)
        else:
            denoised = prediction
            noise = recover_noise(images.tensor, denoised, sigma, self.formulation)
        return [
            {"noise": noise[i, :, :height, :width], "denoised": denoised[i, :, :height, :width]}
            for i, (height, width) in enumerate(images.image_sizes)
        ]


def _valid_pixels(images: ImageList) -> Tensor | None:
    """(B, 1, H, W) float: 1 on the image, 0 on padding; None if there is no padding."""
    if all(size == images.tensor.shape[-2:] for size in images.image_sizes):
        return None
    valid = torch.zeros_like(images.tensor[:, :1])
    for i, (height, width) in enumerate(images.image_sizes):
        valid[i, :, :height, :width] = 1
    return valid
