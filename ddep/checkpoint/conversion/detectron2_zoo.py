"""detectron2's model zoo: ResNets trained on ImageNet, alone or inside a detector."""

from __future__ import annotations

from typing import Any

import torch

from ddep.checkpoint.conversion.entries import (
    Entries,
    Entry,
    Settings,
    Weights,
    children,
    find,
    renamed,
)
from ddep.checkpoint.conversion.imagenet import input_config
from ddep.checkpoint.conversion.resnet import DEPTHS, resnet_config
from ddep.checkpoint.loading import from_caffe2

LOOKED_FOR = "res2.0.conv1.weight, alone or below backbone., or Caffe2's res2_0_branch2a_w"

_CAFFE2 = "res2_0_branch2a_w"
# In a detector with FPN, in one without, and in a file with only the ResNet.
_PREFIXES = ("backbone.bottom_up.", "backbone.", "")
# Caffe2's models take channels in this order and do not divide by a standard deviation.
_CAFFE2_INPUT = {
    "MODEL.PIXEL_MEAN": [103.53, 116.28, 123.675],
    "MODEL.PIXEL_STD": [1.0, 1.0, 1.0],
    "INPUT.FORMAT": "BGR",
}


def recognises(weights: Weights) -> bool:
    """Whether there is a ResNet with detectron2's or Caffe2's names, but not in a Mask2Former."""
    ours = ("sem_seg_head.predictor.", "sem_seg_head.pixel_decoder.", "denoising_head.")
    return (_CAFFE2 in weights or _prefix(weights) is not None) and not any(
        name.startswith(ours) for name in weights
    )


def is_converted(weights: Weights) -> bool:
    """Whether there is only a ResNet below ``backbone.``, as in a converted file.

    The zoo's detectors also have heads.
    """
    return _prefix(weights) == "backbone." and all(n.startswith("backbone.") for n in weights)


def entries(weights: Weights, settings: Settings) -> Entries:
    """The ResNet's weights, below ``backbone.``.

    Caffe2's norms are a scale and an offset: their statistics are 0 and 1, as in detectron2.
    """
    if _CAFFE2 in weights:
        return _caffe2_entries(weights)
    prefix = _prefix(weights) or ""
    parts = ("stem.", "res2.", "res3.", "res4.", "res5.")

    def target(name: str) -> str | None:
        inner = name.removeprefix(prefix)
        if not (name.startswith(prefix) and inner.startswith(parts)):
            return None
        return None if name.endswith("num_batches_tracked") else f"backbone.{inner}"

    return renamed(weights, target)


def config_of(weights: Weights, settings: Settings) -> dict[str, Any]:
    """The config keys that describe the model; empty for a depth that detectron2 does not have.

    Files with only a ResNet come from torchvision or, with Caffe2's names, from the original
    authors. A detector's weights do not determine its strides and pixel statistics, so those of the
    zoo's ResNet-50 and -101 are returned; a detector's own config may differ.
    """
    found = {name.removeprefix("backbone."): e.tensor for name, e in entries(weights, {}).items()}
    blocks = tuple(children(found, f"res{stage}.") for stage in range(2, 6))
    bottleneck = "res2.0.conv3.weight" in found
    depth = DEPTHS.get((blocks, bottleneck))
    if depth is None:
        return {}
    conv2 = find(found, "res2.0.conv2.weight", 4).shape
    last = find(found, "res2.0.conv3.weight" if bottleneck else "res2.0.conv2.weight", 4)
    has_groups = conv2[0] != conv2[1]
    is_torchvision = _CAFFE2 not in weights and _prefix(weights) == ""
    config = {
        "MODEL.BACKBONE.NAME": "build_resnet_backbone",
        **resnet_config(
            depth,
            len(find(found, "stem.conv1.weight", 4)),
            conv2,
            len(last),
            stride_in_1x1=not (is_torchvision or has_groups),
        ),
        **(input_config({}) if is_torchvision else _CAFFE2_INPUT),
    }
    if has_groups and not is_torchvision:
        # The only one of Caffe2's models that divides by it is the zoo's ResNeXt.
        config["MODEL.PIXEL_STD"] = [57.375, 57.12, 58.395]
    return config


def _prefix(weights: Weights) -> str | None:
    return next((p for p in _PREFIXES if f"{p}res2.0.conv1.weight" in weights), None)


def _caffe2_entries(weights: Weights) -> Entries:
    converted, originals = from_caffe2(weights)
    found = {
        f"backbone.{name}": Entry((originals[name],), tensor)
        for name, tensor in converted.items()
        if name.startswith(("stem.", "res"))
    }
    for name in [name for name in found if name.endswith(".norm.weight")]:
        sources, scale = found[name].sources, found[name].tensor
        stem = name.removesuffix("weight")
        found[f"{stem}running_mean"] = Entry(sources, torch.zeros_like(scale))
        found[f"{stem}running_var"] = Entry(sources, torch.ones_like(scale))
    return found
