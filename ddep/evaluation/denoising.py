"""How well the noise in an image is predicted."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.evaluation import DatasetEvaluator
from detectron2.utils import comm
from PIL import Image
from tabulate import tabulate
from torch import Tensor
from torchvision.utils import make_grid

from ddep.drawing.denoising import noisy_denoised_clean, to_picture
from ddep.errors import UserError
from ddep.event_storage import current_event_storage

logger = logging.getLogger(__name__)
METRICS = ("noise_mse", "psnr_noisy", "psnr_denoised")
# Images in the picture grid, one a row.
NUM_ROWS = 8


class DenoisingEvaluator(DatasetEvaluator):
    """Error of the predicted noise, and PSNR before and after denoising.

    All three are computed for each image and then averaged over the images:

    - ``noise_mse``: mean squared error of the noise. Predicting nothing scores 1.
    - ``psnr_noisy``, ``psnr_denoised``: peak signal-to-noise ratio in dB, on pixel values from 0 to
      255. The noisy image is ``x + sigma * eps``, whatever its scale. Nothing is clipped.
    """

    def __init__(
        self,
        dataset_name: str,
        *,
        formulation: str,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        image_format: str,
        output_dir: str,
    ) -> None:
        """
        Args:
            dataset_name: for messages.
            formulation: how noise was added, ``scaled`` or ``additive`` (see :mod:`ddep.noise`).
            pixel_mean: with ``pixel_std``, what the images were normalised with.
            pixel_std: one number a channel, as ``pixel_mean``.
            image_format: order of the channels, ``RGB`` or ``BGR``.
            output_dir: where ``denoising.png`` goes.
        """
        self._name = dataset_name
        self._formulation = formulation
        self._mean = torch.tensor(pixel_mean).view(-1, 1, 1)
        self._std = torch.tensor(pixel_std).view(-1, 1, 1)
        self._image_format = image_format
        self._output_dir = output_dir
        self.reset()

    def reset(self) -> None:
        self._scores: list[tuple[float, ...]] = []
        self._rows: list[list[Tensor]] = []

    def process(
        self, inputs: Sequence[Mapping[str, Any]], outputs: Sequence[Mapping[str, Any]]
    ) -> None:
        """Compare predictions with the noise that was added.

        Args:
            inputs: dicts with ``image`` (3, H, W), normalised and noisy, ``noise`` (3, H, W) and
                ``sigma``.
            outputs: dicts with the estimates ``noise`` and ``denoised`` (3, H, W), normalised.
        """
        for image, output in zip(inputs, outputs, strict=True):
            noisy, denoised, clean = noisy_denoised_clean(
                image, output, self._formulation, self._mean, self._std
            )
            noise_mse = F.mse_loss(output["noise"].cpu(), image["noise"].cpu()).item()
            self._scores.append((noise_mse, _psnr(noisy, clean), _psnr(denoised, clean)))
            if len(self._rows) < NUM_ROWS:
                row = [to_picture(x, self._image_format) for x in (noisy, denoised, clean)]
                self._rows.append(row)

    def evaluate(self) -> dict[str, dict[str, float]] | None:
        """Average over the images of all processes, and draw the first ones.

        ``denoising.png`` shows the first images that the main process has seen, one a row: noisy,
        denoised, clean. It also goes to the event storage (TensorBoard) if one is active.

        Returns:
            ``{"denoising": {"noise_mse", "psnr_noisy", "psnr_denoised"}}``; None on all but the
            main process.

        Raises:
            UserError: there were no images.
        """
        gathered = comm.gather(self._scores)
        if not comm.is_main_process():
            return None
        scores = [score for part in gathered for score in part]
        if not scores:
            raise UserError(f"data set {self._name} has no images to evaluate")
        means = torch.tensor(scores, dtype=torch.float64).mean(dim=0).tolist()
        results = dict(zip(METRICS, means, strict=True))
        table = tabulate([means], METRICS, "pipe", floatfmt=".4f")
        logger.info("Denoising of %d images of %s:\n%s", len(scores), self._name, table)
        self._draw()
        return {"denoising": results}

    def _draw(self) -> None:
        pictures = [picture for row in self._rows for picture in row]
        height = max(picture.shape[1] for picture in pictures)
        width = max(picture.shape[2] for picture in pictures)
        padded = [F.pad(p, (0, width - p.shape[2], 0, height - p.shape[1])) for p in pictures]
        grid = make_grid(padded, nrow=3)
        os.makedirs(self._output_dir, exist_ok=True)
        path = os.path.join(self._output_dir, "denoising.png")
        Image.fromarray(grid.permute(1, 2, 0).numpy()).save(path)
        logger.info("Pictures, noisy | denoised | clean: %s", path)
        storage = current_event_storage()
        if storage is not None:
            storage.put_image(f"denoising/{self._name}", grid)


def _psnr(pixels: Tensor, truth: Tensor) -> float:
    """Peak signal-to-noise ratio in dB, with a peak of 255."""
    return (10 * torch.log10(255**2 / F.mse_loss(pixels, truth))).item()
