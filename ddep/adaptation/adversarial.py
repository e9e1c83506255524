"""A discriminator tells domains apart by predictions; the model learns to fool it.

AdaptSegNet (arXiv 1802.10349) shows it class probabilities, AdvEnt (arXiv 1811.12833, section 3.2)
weighted self-information.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from ddep.adaptation.discriminator import SOURCE, TARGET, Discriminator
from ddep.adaptation.maps import image_maps, self_information
from ddep.adaptation.method import AdaptationBatch
from ddep.adaptation.output_space import OutputSpaceMethod
from ddep.adaptation.registry import register_method
from ddep.errors import UserError

# MODEL.ADAPTATION.ADVERSARIAL.MAPS: from log probabilities (K, H, W) to what discriminators see.
_MAPS: dict[str, Callable[[Tensor], Tensor]] = {
    "softmax": torch.exp,
    "self_information": self_information,
}


@register_method
class AdversarialAdaptation(OutputSpaceMethod):
    """Each layer has a discriminator and two losses.

    ``loss_adversarial`` is small if the discriminator takes target images for source images; it
    changes the model only. ``d_loss`` is the discriminator's own, half of it for each domain; it
    changes the discriminator only. Both see the discriminator's weights before the step.
    """

    name: ClassVar = "adversarial"
    section: ClassVar = "ADVERSARIAL"

    def __init__(self, cfg: CfgNode, num_classes: int) -> None:
        """As :class:`OutputSpaceMethod`."""
        super().__init__(cfg, num_classes)
        settings = cfg.MODEL.ADAPTATION.ADVERSARIAL
        self.discriminators = nn.ModuleList(Discriminator(num_classes) for _ in self.weights)
        self._to_maps = _MAPS[settings.MAPS]
        self._rate, self._betas = settings.BASE_LR, tuple(settings.BETAS)

    @classmethod
    def check(cls, cfg: CfgNode) -> None:
        """As :meth:`Method.check`."""
        super().check(cfg)
        settings = cfg.MODEL.ADAPTATION.ADVERSARIAL
        key = "MODEL.ADAPTATION.ADVERSARIAL"
        if settings.MAPS not in _MAPS:
            raise UserError(f"{key}.MAPS is {settings.MAPS!r}; expected {' or '.join(_MAPS)}")
        if not settings.BASE_LR > 0:
            raise UserError(f"{key}.BASE_LR is {settings.BASE_LR!r}; expected a number above 0")
        betas = settings.BETAS
        if len(betas) != 2 or not all(0 <= beta < 1 for beta in betas):
            raise UserError(f"{key}.BETAS is {betas!r}; expected two numbers from 0 to below 1")

    def optimizer(self) -> torch.optim.Optimizer:
        """As :meth:`Method.optimizer`."""
        parameters = self.discriminators.parameters()
        return torch.optim.Adam(parameters, lr=self._rate, betas=self._betas, fused=True)

    def layer_losses(
        self, batch: AdaptationBatch, layer: int, target_maps: Sequence[Tensor]
    ) -> dict[str, Tensor]:
        """As :meth:`OutputSpaceMethod.layer_losses`."""
        discriminator = self.discriminators[layer]
        log_probabilities = batch.source_predictions.log_probabilities[layer].detach()
        source_maps = image_maps(log_probabilities, batch.source_images)
        source = [self._to_maps(maps) for maps in source_maps]
        target = [self._to_maps(maps) for maps in target_maps]
        fooling = torch.stack([discriminator.fooling_loss(maps, SOURCE) for maps in target])
        on_source = torch.stack([discriminator.loss(maps, SOURCE) for maps in source])
        on_target = torch.stack([discriminator.loss(maps.detach(), TARGET) for maps in target])
        own = (batch.source_mean(on_source) + batch.target_mean(on_target)) / 2
        return {
            "loss_adversarial": self.weights[layer] * batch.target_mean(fooling),
            "d_loss": own,
        }
