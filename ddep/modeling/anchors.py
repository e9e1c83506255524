"""Anchors for weights converted from torchvision."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from detectron2.modeling import ANCHOR_GENERATOR_REGISTRY
from detectron2.modeling.anchor_generator import DefaultAnchorGenerator
from detectron2.structures import Boxes
from torch import Tensor


@ANCHOR_GENERATOR_REGISTRY.register()
class TorchvisionAnchorGenerator(DefaultAnchorGenerator):
    """The anchors that torchvision's detectors were trained with.

    They differ from detectron2's in two ways. Half the sides of an anchor are rounded to whole
    pixels. The distance between anchors is the size of the padded image divided by that of the
    feature, rounded down; it is less than the feature's stride if the image is not padded to a
    multiple of it (a padded width of 96 has two columns at stride 64, 48 pixels apart).
    """

    def generate_cell_anchors(
        self, sizes: Sequence[float] = (32,), aspect_ratios: Sequence[float] = (0.5, 1, 2)
    ) -> Tensor:
        """(len(sizes) * len(aspect_ratios), 4), XYXY around (0, 0)."""
        return super().generate_cell_anchors(sizes, aspect_ratios).round()

    def forward(self, features: Sequence[Tensor]) -> list[Boxes]:
        """
        Args:
            features: (B, C, Hi, Wi) each, the finest first; its stride divides the padded image.

        Returns:
            Hi * Wi * A boxes for each feature, A of them at each place.
        """
        height, width = (side * self.strides[0] for side in features[0].shape[-2:])
        anchors = []
        for feature, cell in zip(features, self.cell_anchors, strict=True):
            rows, columns = feature.shape[-2:]
            y = torch.arange(rows, device=cell.device) * (height // rows)
            x = torch.arange(columns, device=cell.device) * (width // columns)
            y, x = torch.meshgrid(y, x, indexing="ij")
            places = torch.stack([x, y, x, y], dim=-1).view(-1, 1, 4)
            anchors.append(Boxes((places + cell).view(-1, 4)))
        return anchors
