"""This project's own checkpoints, slimmed to what fine-tuning can load."""

from __future__ import annotations

from typing import Any

import torch

from ddep.checkpoint.groups import TRANSFERABLE, group_of


def recognises(weights: dict[str, torch.Tensor]) -> bool:
    """Whether there is a backbone and a pixel decoder of this project (or of Mask2Former)."""
    groups = {group_of(name) for name in weights}
    return {"backbone", "mask_features"} <= groups


def target_name(name: str) -> str | None:
    """The name itself; None for what lies outside the backbone and the pixel decoder."""
    return name if group_of(name) in TRANSFERABLE else None


def config_of(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """Nothing: the config is the one that the checkpoint was trained with."""
    return {}
