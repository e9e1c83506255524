"""torchvision's ResNets, ResNeXts and wide ResNets."""

from __future__ import annotations

import re
from typing import Any

import torch

from ddep.checkpoint.conversion.imagenet import IMAGENET_CONFIG
from ddep.errors import UserError

# Blocks per stage, and whether a block has three convolutions -> depth.
_DEPTHS = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}


def recognises(weights: dict[str, torch.Tensor]) -> bool:
    """Whether these are the weights of a torchvision ResNet."""
    return "conv1.weight" in weights and "layer4.0.conv2.weight" in weights


def target_name(name: str) -> str | None:
    """The name of a weight in the whole model, whose ResNet is detectron2's.

    None for what it does not take: the classifier, and the counters of batch norm, which a frozen
    one does not have.
    """
    if name.startswith("fc.") or name.endswith("num_batches_tracked"):
        return None
    name = re.sub(r"^(conv|bn)1\.", r"stem.\g<0>", name)
    name = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", name)
    name = re.sub(r"\bbn(\d)\.", r"conv\1.norm.", name)
    name = name.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")
    return f"backbone.{name}"


def config_of(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The config keys that describe the model, from its names and shapes.

    Raises:
        UserError: no depth that detectron2 knows.
    """
    blocks = tuple(_blocks(weights, stage) for stage in range(1, 5))
    bottleneck = "layer1.0.conv3.weight" in weights
    if (blocks, bottleneck) not in _DEPTHS:
        raise UserError(
            f"a ResNet with {blocks} blocks per stage; expected one of "
            f"{', '.join(f'ResNet-{depth}' for depth in _DEPTHS.values())}"
        )
    width, inputs_per_group = weights["layer1.0.conv2.weight"].shape[:2]
    groups = width // inputs_per_group
    last = "layer1.0.conv3.weight" if bottleneck else "layer1.0.conv2.weight"
    return {
        "MODEL.BACKBONE.NAME": "build_resnet_backbone",
        "MODEL.RESNETS.DEPTH": _DEPTHS[blocks, bottleneck],
        "MODEL.RESNETS.NUM_GROUPS": groups,
        "MODEL.RESNETS.WIDTH_PER_GROUP": width // groups,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": len(weights[last]),
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
        **IMAGENET_CONFIG,
    }


def _blocks(weights: dict[str, torch.Tensor], stage: int) -> int:
    start = f"layer{stage}."
    return len({name[len(start) :].split(".")[0] for name in weights if name.startswith(start)})
