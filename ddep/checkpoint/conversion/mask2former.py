"""Mask2Former's and MaskFormer's own checkpoints, and this project's segmentation checkpoints."""

from __future__ import annotations

import re
from typing import Any

from ddep.checkpoint.conversion.entries import Entries, Settings, Weights, renamed

LOOKED_FOR = "sem_seg_head.predictor.*"


def recognises(weights: Weights) -> bool:
    """Whether there is a backbone and a transformer decoder with Mask2Former's names."""
    return any(name.startswith("backbone.") for name in weights) and any(
        name.startswith("sem_seg_head.predictor.") for name in weights
    )


def entries(weights: Weights, settings: Settings) -> Entries:
    """All weights under their current names; older versions had other names."""
    return renamed(weights, _target)


def _target(name: str) -> str:
    name = name.replace(
        "sem_seg_head.predictor.static_query.", "sem_seg_head.predictor.query_feat."
    )
    return re.sub(
        r"^sem_seg_head\.(?!pixel_decoder\.|predictor\.)", "sem_seg_head.pixel_decoder.", name
    )


def config_of(weights: Weights, settings: Settings) -> dict[str, Any]:
    """Empty: the config is the one that the checkpoint was published with."""
    return {}
