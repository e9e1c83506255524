"""Denoising as a function of tensors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ddep.modeling.exportable.exportable import Exportable
from ddep.modeling.meta_arch.denoiser import DenoisingPretrainer
from ddep.noise import noise_scale, recover_image, recover_noise


class ExportableDenoiser(Exportable):
    """The denoiser, whose second input ``sigma`` (B,) float32 is the size of the noise.

    It is in units of normalised images, as MODEL.DDEP.SIGMA: noise of standard deviation ``sigma``
    times PIXEL_STD on the pixels of ``images``, which may therefore be below 0 or above 255.
    """

    takes: ClassVar = {
        **Exportable.takes,
        "sigma": "(B,) float32, the noise's standard deviation in units of normalised images",
    }

    def __init__(
        self,
        model: DenoisingPretrainer,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        image_format: str,
        post_processing: bool,
    ) -> None:
        """
        Args:
            model: in evaluation mode.
            pixel_mean, pixel_std, image_format: see :class:`Exportable`.
            post_processing: results are the image and the noise instead of what is predicted.
        """
        super().__init__(
            pixel_mean=pixel_mean,
            pixel_std=pixel_std,
            image_format=image_format,
            size_divisibility=model.size_divisibility,
        )
        self.backbone = model.backbone
        self.sem_seg_head = model.sem_seg_head
        self.denoising_head = model.denoising_head
        self.formulation = model.formulation
        self.predicts_noise = model.denoising_loss.target == "noise"
        self.post_processing = post_processing
        if post_processing:
            self.describes = {
                "denoised": "(B, 3, H, W) float32, RGB, about 0..255: the image without noise",
                "noise": "(B, 3, H, W) float32: the noise, standard Gaussian",
            }
        else:
            target = "standard Gaussian noise" if self.predicts_noise else "normalised image"
            self.describes = {"prediction": f"(B, 3, H, W) float32: the {target}, as predicted"}

    def examples(self, batch: int, height: int, width: int) -> dict[str, Tensor]:
        """As :meth:`Exportable.examples`."""
        sigma = torch.full((batch,), 0.5, device=self.pixel_mean.device)
        return {**super().examples(batch, height, width), "sigma": sigma}

    def forward(self, images: Tensor, sigma: Tensor) -> dict[str, Tensor]:
        """As :meth:`Exportable.forward`."""
        height, width = images.shape[-2:]
        sigma = sigma[:, None, None, None]
        noisy = self.pad(self.normalise(images) * noise_scale(sigma, self.formulation))
        mask_features, _ = self.sem_seg_head(self.backbone(noisy))
        rows, columns = noisy.shape[-2:]
        # Results are cropped at the end: a graph could not tell that both would be of one size.
        prediction = self.denoising_head(mask_features)[..., :rows, :columns]
        if not self.post_processing:
            return {"prediction": prediction[..., :height, :width]}
        if self.predicts_noise:
            noise = prediction
            denoised = recover_image(noisy, noise, sigma, self.formulation)
        else:
            denoised = prediction
            noise = recover_noise(noisy, denoised, sigma, self.formulation)
        if self.reverses_channels:
            noise = noise.flip(1)
        results = {"denoised": self.denormalise(denoised), "noise": noise}
        return {name: result[..., :height, :width] for name, result in results.items()}
