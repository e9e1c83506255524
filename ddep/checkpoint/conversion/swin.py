"""Microsoft's Swin Transformer checkpoints (arXiv 2103.14030), as their authors publish them."""

from __future__ import annotations

import math
from typing import Any

import torch

from ddep.checkpoint.conversion.imagenet import IMAGENET_CONFIG

_TABLE = "layers.{}.blocks.0.attn.relative_position_bias_table"


def recognises(weights: dict[str, torch.Tensor]) -> bool:
    """Whether these are the weights of a Swin (version 1)."""
    return "patch_embed.proj.weight" in weights and _TABLE.format(0) in weights


def target_name(name: str) -> str | None:
    """The name of a weight in the whole model; None for what it does not take.

    It takes no classification head with its norm, and computes the attention masks.
    """
    if name.startswith(("norm.", "head.")) or name.endswith(".attn_mask"):
        return None
    return f"backbone.{name}"


def config_of(weights: dict[str, torch.Tensor]) -> dict[str, Any]:
    """The config keys that describe the model, from the shapes of its weights.

    The window's side w comes from the (2w - 1)^2 rows of the position tables, the heads from their
    columns.
    """
    width, _, patch_size, _ = weights["patch_embed.proj.weight"].shape
    stages = sum(_TABLE.format(stage) in weights for stage in range(9))
    return {
        "MODEL.BACKBONE.NAME": "D2SwinTransformer",
        "MODEL.SWIN.EMBED_DIM": width,
        "MODEL.SWIN.PATCH_SIZE": patch_size,
        "MODEL.SWIN.DEPTHS": [_depth(weights, stage) for stage in range(stages)],
        "MODEL.SWIN.NUM_HEADS": [weights[_TABLE.format(s)].shape[1] for s in range(stages)],
        "MODEL.SWIN.WINDOW_SIZE": (math.isqrt(len(weights[_TABLE.format(0)])) + 1) // 2,
        "MODEL.SWIN.MLP_RATIO": len(weights["layers.0.blocks.0.mlp.fc1.weight"]) / width,
        "MODEL.SWIN.QKV_BIAS": "layers.0.blocks.0.attn.qkv.bias" in weights,
        "MODEL.SWIN.PATCH_NORM": "patch_embed.norm.weight" in weights,
        **IMAGENET_CONFIG,
    }


def _depth(weights: dict[str, torch.Tensor], stage: int) -> int:
    start = f"layers.{stage}.blocks."
    return len({name[len(start) :].split(".")[0] for name in weights if name.startswith(start)})
