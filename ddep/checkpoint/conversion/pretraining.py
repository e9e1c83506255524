"""This project's own pretraining checkpoints, reduced to what fine-tuning can load."""

from __future__ import annotations

from typing import Any

from ddep.checkpoint.conversion import mask2former
from ddep.checkpoint.conversion.entries import Entries, Settings, Weights, renamed
from ddep.checkpoint.groups import TRANSFERABLE, group_of

LOOKED_FOR = (
    "backbone.* and sem_seg_head.pixel_decoder.mask_features.* or denoising_head.*, without a "
    "predictor"
)


def recognises(weights: Weights) -> bool:
    """Whether there is a backbone with a pixel decoder or a denoising head, and no predictor."""
    groups = {group_of(name) for name in weights}
    pretrains = "backbone" in groups and not groups.isdisjoint(("mask_features", "denoising_head"))
    return pretrains and not mask2former.recognises(weights)


def entries(weights: Weights, settings: Settings) -> Entries:
    """The weights of the backbone and the decoder, under their own names."""
    return renamed(weights, lambda name: name if group_of(name) in TRANSFERABLE else None)


def config_of(weights: Weights, settings: Settings) -> dict[str, Any]:
    """Empty: the config is the one that the checkpoint was trained with."""
    return {}
