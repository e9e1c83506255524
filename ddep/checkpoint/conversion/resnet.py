"""torchvision's and timm's ResNets, ResNeXts and wide ResNets."""

from __future__ import annotations

import re
from typing import Any

from ddep.checkpoint.conversion import timm_models
from ddep.checkpoint.conversion.entries import (
    Entries,
    Settings,
    Weights,
    children,
    find,
    renamed,
)
from ddep.checkpoint.conversion.imagenet import input_config

LOOKED_FOR = "layer1.0.conv1.weight and layer4.0.conv2.weight"

# Blocks per stage, and whether a block has three convolutions -> depth.
DEPTHS = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
    ((3, 8, 36, 3), True): 152,
}

# The names of a plain ResNet's weights, and of the parts of any ResNet, which may have a deep stem,
# squeeze-and-excitation, ... Everything outside these parts is a head.
_NORM = r"(weight|bias|running_mean|running_var|num_batches_tracked)"
_PLAIN = re.compile(
    rf"(layer\d\.\d+\.)?(conv\d\.weight|bn\d\.{_NORM})"
    rf"|layer\d\.0\.downsample\.(0\.weight|1\.{_NORM})"
)
_PART = re.compile(r"(conv1|bn1|maxpool|layer\d)\.")
# timm's models that are plain; others may have plain names but differ in layers without weights.
_PLAIN_MODELS = re.compile(r"(tv_|gluon_)?(wide_)?resne[x]?t\d+(_\d+x\d+d?|_2|_v1b)?")


def recognises(weights: Weights) -> bool:
    """Whether these are the weights of a ResNet with torchvision's names."""
    return "layer1.0.conv1.weight" in weights and "layer4.0.conv2.weight" in weights


def entries(weights: Weights, settings: Settings) -> Entries:
    """The weights of a plain ResNet under detectron2's names, those of another under timm's."""
    if _is_plain(weights, settings):
        return renamed(weights, _detectron2_target)
    return timm_models.entries({n: t for n, t in weights.items() if _PART.match(n)})


def detectron2_name(name: str) -> str | None:
    """What detectron2 calls a plain ResNet's weight; None if it has no place for it."""
    # A frozen batch norm counts no batches.
    if not _PART.match(name) or name.endswith("num_batches_tracked"):
        return None
    name = re.sub(r"^(conv|bn)1\.", r"stem.\g<0>", name)
    name = re.sub(r"^layer(\d)", lambda match: f"res{int(match[1]) + 1}", name)
    name = re.sub(r"\bbn(\d)\.", r"conv\1.norm.", name)
    return name.replace("downsample.0.", "shortcut.").replace("downsample.1.", "shortcut.norm.")


def _detectron2_target(name: str) -> str | None:
    inner = detectron2_name(name)
    return inner and f"backbone.{inner}"


def config_of(weights: Weights, settings: Settings) -> dict[str, Any]:
    """The config keys that describe the model, from its names and shapes.

    Empty for a variant that is not plain and that neither its weights nor ``settings`` identify.
    """
    depth = DEPTHS.get(_blocks(weights))
    if not _is_plain(weights, settings):
        is_deep = "conv1.6.weight" in weights and "layer1.0.se.fc1.weight" not in weights
        guess = f"resnet{depth}d" if depth and is_deep else None
        return timm_models.config(settings, guess)
    return {
        "MODEL.BACKBONE.NAME": "build_resnet_backbone",
        **resnet_config(
            depth,
            len(find(weights, "conv1.weight", 4)),
            find(weights, "layer1.0.conv2.weight", 4).shape,
            len(find(weights, f"layer1.0.{'conv3' if _blocks(weights)[1] else 'conv2'}.weight", 4)),
            stride_in_1x1=False,
        ),
        **input_config(settings),
    }


def resnet_config(
    depth: int,
    stem_channels: int,
    conv2: tuple[int, ...],
    res2_channels: int,
    *,
    stride_in_1x1: bool,
) -> dict[str, Any]:
    """The config keys of MODEL.RESNETS.

    Args:
        depth: 18, 34, 50, ...
        stem_channels: output channels of the stem.
        conv2: shape of the second convolution in the first block of res2.
        res2_channels: output channels of res2.
        stride_in_1x1: whether blocks stride in the first convolution, as in the original.
    """
    groups = max(1, conv2[0] // conv2[1])
    return {
        "MODEL.RESNETS.DEPTH": depth,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": stem_channels,
        "MODEL.RESNETS.NUM_GROUPS": groups,
        "MODEL.RESNETS.WIDTH_PER_GROUP": conv2[0] // groups,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": res2_channels,
        "MODEL.RESNETS.STRIDE_IN_1X1": stride_in_1x1,
        "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    }


def _is_plain(weights: Weights, settings: Settings) -> bool:
    architecture = settings.get("architecture")
    return (
        _blocks(weights) in DEPTHS
        and "bn1.running_mean" in weights
        and all(_PLAIN.fullmatch(name) for name in weights if _PART.match(name))
        and (not isinstance(architecture, str) or bool(_PLAIN_MODELS.fullmatch(architecture)))
    )


def _blocks(weights: Weights) -> tuple[tuple[int, ...], bool]:
    blocks = tuple(children(weights, f"layer{stage}.") for stage in range(1, 5))
    return blocks, "layer1.0.conv3.weight" in weights
