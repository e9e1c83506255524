"""What all exportable models share: pixels in, normalised and padded images for the network."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Exportable(nn.Module, ABC):
    """A model whose inputs and results are tensors with the batch as their first dimension.

    Images are ``images`` (B, 3, H, W) float32, RGB, 0..255, all of one size.

    Attributes:
        takes: what each input is, by its name.
        describes: what each result is, by its name.
    """

    takes: ClassVar[dict[str, str]] = {"images": "(B, 3, H, W) float32, RGB, 0..255"}
    describes: dict[str, str]

    def __init__(
        self,
        *,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
        image_format: str,
        size_divisibility: int,
    ) -> None:
        """
        Args:
            pixel_mean, pixel_std: of each channel, in the order of ``image_format``.
            image_format: ``RGB`` or ``BGR``: the order of channels that the network takes.
            size_divisibility: sides are padded to a multiple of this; 0 pads nothing.
        """
        super().__init__()
        self.reverses_channels = image_format == "BGR"
        self.size_divisibility = max(size_divisibility, 1)
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    @abstractmethod
    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the results by name; see :attr:`describes`."""

    @property
    def smallest_side(self) -> int:
        """The smallest side in pixels that a graph for all sizes is good for.

        A side of one cell at stride 32 would be broadcast, which no graph allows for.
        """
        return max(self.size_divisibility, 32) + 1

    def examples(self, batch: int, height: int, width: int) -> dict[str, Tensor]:
        """Inputs of a size, by name, with random numbers."""
        device = self.pixel_mean.device
        return {"images": 255 * torch.rand(batch, 3, height, width, device=device)}

    def facts(self) -> dict[str, Any]:
        """More that the user of the model has to know; for JSON."""
        return {}

    def normalise(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), RGB, 0..255 -> the same, normalised, in the network's order."""
        if self.reverses_channels:
            images = images.flip(1)
        return (images - self.pixel_mean) / self.pixel_std

    def denormalise(self, images: Tensor) -> Tensor:
        """The inverse of :meth:`normalise`."""
        pixels = images * self.pixel_std + self.pixel_mean
        return pixels.flip(1) if self.reverses_channels else pixels

    def pad(self, images: Tensor) -> Tensor:
        """Pad with zeros, at the bottom and on the right, to multiples of the divisibility."""
        sides = images.shape[-2:]
        unit = self.size_divisibility
        height, width = ((side + unit - 1) // unit * unit - side for side in sides)
        return F.pad(images, (0, width, 0, height))
