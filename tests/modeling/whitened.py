"""A small model with a whitened ResNet."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY
from detectron2.modeling.backbone.resnet import ResNet
from torch import Tensor, nn

from ddep.config import add_ddep_config


def whitened_config(*overrides: Any) -> CfgNode:
    """The config of a whitened ResNet-50 of a few channels, up to res3."""
    cfg = get_cfg()
    add_ddep_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_whitened_resnet_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    resnets = cfg.MODEL.RESNETS
    resnets.STEM_OUT_CHANNELS = resnets.WIDTH_PER_GROUP = 4
    resnets.RES2_OUT_CHANNELS = 8
    resnets.OUT_FEATURES = ["res3"]
    cfg.merge_from_list(list(overrides))
    return cfg


def build_resnet(cfg: CfgNode) -> ResNet:
    """The backbone of ``cfg``, always with the same weights, in double precision."""
    torch.manual_seed(0)
    build = BACKBONE_REGISTRY.get(cfg.MODEL.BACKBONE.NAME)
    return build(cfg, ShapeSpec(channels=3)).double()


class MeanSquare(nn.Module):
    """Maps images to the mean square of their features; see :meth:`ddep.tasks.Task.normalisers`."""

    def __init__(self, cfg: CfgNode) -> None:
        super().__init__()
        self.backbone = build_resnet(cfg)
        self.register_buffer("pixel_mean", torch.full((3, 1, 1), 120.0, dtype=torch.float64))
        self.register_buffer("pixel_std", torch.full((3, 1, 1), 60.0, dtype=torch.float64))

    def normalisers(self, batched_inputs: list[dict[str, Any]]) -> dict[str, float]:
        return {"images": len(batched_inputs)}

    def forward(
        self, batched_inputs: list[dict[str, Any]], normalisers: Mapping[str, Tensor] | None = None
    ) -> dict[str, Tensor]:
        images = torch.stack([inputs["image"] for inputs in batched_inputs])
        features = self.backbone((images - self.pixel_mean) / self.pixel_std)["res3"]
        number = len(images) if normalisers is None else normalisers["images"]
        return {"loss": features.square().mean((1, 2, 3)).sum() / number}


def images(number: int) -> list[dict[str, Tensor]]:
    """Samples of noisy images, (3, 40, 48) uint8."""
    generator = torch.Generator().manual_seed(1)
    size = (number, 3, 40, 48)
    drawn = torch.randint(0, 256, size, dtype=torch.uint8, generator=generator)
    return [{"image": image} for image in drawn]
