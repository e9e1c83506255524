"""MinEnt: certain predictions on target images (ADVENT, arXiv 1811.12833, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor

from ddep.adaptation.maps import entropy
from ddep.adaptation.method import AdaptationBatch
from ddep.adaptation.output_space import OutputSpaceMethod
from ddep.adaptation.registry import register_method


@register_method
class EntropyMinimisation(OutputSpaceMethod):
    """``loss_entropy``: the weighted mean entropy, from 0 to 1, of the pixels of target images."""

    name: ClassVar = "entropy"
    section: ClassVar = "ENTROPY"

    def layer_losses(
        self, batch: AdaptationBatch, layer: int, target_maps: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """As :meth:`OutputSpaceMethod.layer_losses`."""
        of_images = torch.stack([entropy(maps).mean() for maps in target_maps])
        return {"loss_entropy": self.weights[layer] * batch.target_mean(of_images)}
