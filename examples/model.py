"""A model of one's own, which the package does not know: a small U-Net, and its task.

U-Net: Ronneberger et al., 2015, arXiv 1505.04597.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any, ClassVar

import torch
from detectron2.config import CfgNode, configurable
from detectron2.modeling import META_ARCH_REGISTRY
from detectron2.modeling.postprocessing import sem_seg_postprocess
from detectron2.structures import ImageList
from torch import Tensor, nn
from torch.nn import functional as F

from ddep.errors import UserError
from ddep.tasks import PerPixelSegmentationTask, register_task


class UNetwork(nn.Module):
    """Images to logits, through ever smaller and then ever larger features with skip connections.

    Args:
        widths: channels at full size, half the size, a quarter, ...
        num_classes: number of classes K.
    """

    def __init__(self, widths: Sequence[int], num_classes: int) -> None:
        super().__init__()
        steps = list(pairwise(widths))
        self.down = nn.ModuleList([_block(3, widths[0]), *(_block(a, b) for a, b in steps)])
        self.up = nn.ModuleList(_block(a + b, a) for a, b in reversed(steps))
        self.classify = nn.Conv2d(widths[0], num_classes, kernel_size=1)

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W), H and W multiples of 2 for each width after the first, to (B, K, H, W)."""
        features = [self.down[0](images)]
        for block in self.down[1:]:
            features.append(block(F.max_pool2d(features[-1], 2)))
        x = features.pop()
        for block in self.up:
            x = block(torch.cat([features.pop(), F.interpolate(x, scale_factor=2)], dim=1))
        return self.classify(x)


def _block(inputs: int, outputs: int) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel_size=3, padding=1)
    return nn.Sequential(convolution, nn.GroupNorm(4, outputs), nn.ReLU())


@META_ARCH_REGISTRY.register()
class UNet(nn.Module):
    """What the training and the evaluation call: one dict for each image in, losses or results out.

    Args:
        network: images (B, 3, H, W) to logits (B, K, H, W).
        size_divisibility: images are padded to a multiple of this.
        ignore_value: label of pixels that do not count.
        pixel_mean, pixel_std: of each channel.
    """

    @configurable
    def __init__(
        self,
        *,
        network: nn.Module,
        size_divisibility: int,
        ignore_value: int,
        pixel_mean: Sequence[float],
        pixel_std: Sequence[float],
    ) -> None:
        super().__init__()
        self.network = network
        self.size_divisibility = size_divisibility
        self.ignore_value = ignore_value
        for name, values in (("pixel_mean", pixel_mean), ("pixel_std", pixel_std)):
            self.register_buffer(name, torch.tensor(values).view(-1, 1, 1), persistent=False)

    @classmethod
    def from_config(cls, cfg: CfgNode) -> dict[str, Any]:
        widths = cfg.MODEL.UNET.WIDTHS
        return {
            "network": UNetwork(widths, cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES),
            "size_divisibility": 2 ** (len(widths) - 1),
            "ignore_value": cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE,
            "pixel_mean": cfg.MODEL.PIXEL_MEAN,
            "pixel_std": cfg.MODEL.PIXEL_STD,
        }

    def forward(
        self, batched_inputs: list[dict[str, Any]]
    ) -> dict[str, Tensor] | list[dict[str, Tensor]]:
        """
        Args:
            batched_inputs: as the mapper makes them: ``image`` (3, H, W) uint8, in training
                ``sem_seg`` (H, W) int64, in evaluation ``height`` and ``width`` of the result.

        Returns:
            In training the losses by name. In evaluation one dict for each image, with ``sem_seg``
            (K, height, width), as detectron2's evaluators take it.
        """
        images = [self._normalised(x["image"].to(self.pixel_mean.device)) for x in batched_inputs]
        batch = ImageList.from_tensors(images, self.size_divisibility)
        logits = self.network(batch.tensor)
        if self.training:
            labels = ImageList.from_tensors(
                [x["sem_seg"].to(logits.device) for x in batched_inputs],
                self.size_divisibility,
                self.ignore_value,
            )
            loss = F.cross_entropy(logits, labels.tensor, ignore_index=self.ignore_value)
            return {"loss_sem_seg": loss}
        return [
            {"sem_seg": sem_seg_postprocess(scores, size, x["height"], x["width"])}
            for scores, size, x in zip(logits, batch.image_sizes, batched_inputs, strict=True)
        ]

    def _normalised(self, image: Tensor) -> Tensor:
        return (image - self.pixel_mean) / self.pixel_std


@register_task
class UNetTask(PerPixelSegmentationTask):
    """All that the project must know of the model; the rest is that of per-pixel segmentation."""

    meta_architectures: ClassVar = ("UNet",)

    def add_config(self, cfg: CfgNode) -> None:
        """Keys of the model's own, with their defaults."""
        cfg.MODEL.UNET = CfgNode()
        # Channels at full size, half the size, a quarter, ...; multiples of 4 (GroupNorm).
        cfg.MODEL.UNET.WIDTHS = [16, 32, 64]

    def check(self, cfg: CfgNode) -> list[str]:
        """What must hold before a run starts."""
        widths = cfg.MODEL.UNET.WIDTHS
        if not widths or any(width % 4 for width in widths):
            raise UserError(f"MODEL.UNET.WIDTHS is {widths}; expected multiples of 4")
        return super().check(cfg)

    def networks(self, model: nn.Module) -> list[nn.Module]:
        """What MODEL.DDEP.COMPILE compiles."""
        return [model.network]
