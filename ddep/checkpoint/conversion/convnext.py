"""timm's ConvNeXts (arXiv 2201.03545 and 2301.00808)."""

from __future__ import annotations

from typing import Any

from ddep.checkpoint.conversion import timm_models
from ddep.checkpoint.conversion.entries import Entries, Settings, Weights, children, find

LOOKED_FOR = "stages.0.blocks.0.conv_dw.weight and stem.0.weight"

# Width of the first stage and blocks per stage -> size, in either version.
_SIZES = {
    (40, (2, 2, 6, 2)): "atto",
    (48, (2, 2, 6, 2)): "femto",
    (64, (2, 2, 6, 2)): "pico",
    (80, (2, 2, 8, 2)): "nano",
    (96, (3, 3, 9, 3)): "tiny",
    (96, (3, 3, 27, 3)): "small",
    (128, (3, 3, 27, 3)): "base",
    (192, (3, 3, 27, 3)): "large",
    (256, (3, 3, 27, 3)): "xlarge",
    (352, (3, 3, 27, 3)): "huge",
}


def recognises(weights: Weights) -> bool:
    """Whether these are the weights of timm's ConvNeXt."""
    return "stem.0.weight" in weights and "stages.0.blocks.0.conv_dw.weight" in weights


def entries(weights: Weights, settings: Settings) -> Entries:
    """All weights except the head's, to which the last norm belongs."""
    return timm_models.entries(weights, ("head.", "norm_pre."))


def config_of(weights: Weights, settings: Settings) -> dict[str, Any]:
    """The config keys that describe the model, from its width and depths; empty if unknown."""
    depths = tuple(children(weights, f"stages.{stage}.blocks.") for stage in range(4))
    size = _SIZES.get((len(find(weights, "stem.0.weight", 4)), depths))
    version = "v2" if "stages.0.blocks.0.mlp.grn.weight" in weights else ""
    is_plain = "stem.2.weight" not in weights and "stem.1.bias" in weights
    return timm_models.config(settings, f"convnext{version}_{size}" if size and is_plain else None)
