"""timm's plain vision transformers (arXiv 2010.11929), including its DINOv2."""

from __future__ import annotations

import math
from typing import Any

import timm

from ddep.checkpoint.conversion import timm_models
from ddep.checkpoint.conversion.entries import Entries, Settings, Weights, children, find

LOOKED_FOR = "blocks.0.attn.qkv.weight, pos_embed and patch_embed.proj.weight"

# Width and depth -> size.
_SIZES = {
    (192, 12): "tiny",
    (384, 12): "small",
    (768, 12): "base",
    (1024, 24): "large",
    (1536, 40): "giant",
}
_HEADS = ("head.", "head_dist.", "norm.", "fc_norm.", "pre_logits.")
# The parts of a block and of the model in a plain transformer; others belong to another model.
_BLOCK = {"norm1", "attn", "ls1", "norm2", "mlp", "ls2"}
_MODEL = {"cls_token", "pos_embed", "reg_token", "patch_embed", "blocks"}


def recognises(weights: Weights) -> bool:
    """Whether these are the weights of timm's plain vision transformer."""
    return {
        "blocks.0.attn.qkv.weight",
        "pos_embed",
        "patch_embed.proj.weight",
    } <= weights.keys() and "mask_token" not in weights


def entries(weights: Weights, settings: Settings) -> Entries:
    """All weights except those of the head and the last norm."""
    return timm_models.entries(weights, _HEADS)


def config_of(weights: Weights, settings: Settings) -> dict[str, Any]:
    """The config keys that describe the model, from names and shapes; empty if unknown."""
    return timm_models.config(settings, _guess(weights))


def dinov2_name(size: str, patch: int, has_registers: bool) -> str:
    """timm's name of a DINOv2."""
    return f"vit_{size}_patch{patch}_{'reg4_' if has_registers else ''}dinov2"


def size_of(weights: Weights) -> tuple[str | None, int]:
    """The name of the size, or None if it has none; and the side of a patch."""
    kernel = find(weights, "patch_embed.proj.weight", 4)
    return _SIZES.get((len(kernel), children(weights, "blocks."))), kernel.shape[-1]


def _guess(weights: Weights) -> str | None:
    size, patch = size_of(weights)
    parts = {name.split(".")[0] for name in weights if not name.startswith(_HEADS)}
    block = {name.split(".")[2] for name in weights if name.startswith("blocks.0.")}
    others = {name.split(".")[3] for name in weights if name.startswith("blocks.0.attn.")}
    if size is None or not (parts <= _MODEL and block <= _BLOCK and others <= {"qkv", "proj"}):
        return None
    if "blocks.0.ls1.gamma" in weights:
        return dinov2_name(size, patch, "reg_token" in weights)
    side = math.isqrt(find(weights, "pos_embed", 3).shape[1]) * patch
    names = (f"vit_{size}_patch{patch}_{image}" for image in (side, 224))
    return next((name for name in names if timm.is_model(name)), None)
