"""DINOv3's vision transformers (arXiv 2508.10104), as their authors and timm publish them."""

from __future__ import annotations

from typing import Any

import torch

from ddep.checkpoint.conversion import timm_models
from ddep.checkpoint.conversion.entries import (
    Entries,
    Entry,
    Settings,
    Weights,
    children,
    find,
    renamed,
)

LOOKED_FOR = "blocks.0.attn.qkv.weight with storage_tokens, or with reg_token and blocks.0.gamma_1"

# Width, depth and whether the MLPs have a gate -> size.
_SIZES = {
    (384, 12, False): "small",
    (384, 12, True): "small_plus",
    (768, 12, False): "base",
    (1024, 24, False): "large",
    (1280, 32, True): "huge_plus",
}
# The authors' parts of names, and timm's.
_PARTS = {
    "storage_tokens": "reg_token",
    ".ls1.gamma": ".gamma_1",
    ".ls2.gamma": ".gamma_2",
    ".mlp.w1.": ".mlp.fc1_g.",
    ".mlp.w2.": ".mlp.fc1_x.",
    ".mlp.w3.": ".mlp.fc2.",
}
# What only pretraining needs, and constants.
_LEFT_OUT = ("mask_token", "norm.", "local_cls_norm.", "head.", "rope")
_BIAS = ".attn.qkv.bias"


def recognises(weights: Weights) -> bool:
    """Whether these are the weights of a DINOv3."""
    if "pos_embed" in weights or "blocks.0.attn.qkv.weight" not in weights:
        return False
    return "storage_tokens" in weights or {"reg_token", "blocks.0.gamma_1"} <= weights.keys()


def entries(weights: Weights, settings: Settings) -> Entries:
    """The weights under timm's names, below ``backbone.model.``.

    The authors' biases of query and value go to ``q_bias`` and ``v_bias``, which timm's models
    called ``..._qkvb`` have; if all are 0, they are left out. The key has none.

    Raises:
        UserError: two weights get the same name.
    """
    found = renamed(weights, _target)
    if _has_biases(weights):
        for name, tensor in weights.items():
            if name.endswith(_BIAS):
                block = f"backbone.model.{name.removesuffix('qkv.bias')}"
                query, _, value = tensor.chunk(3)
                found[f"{block}q_bias"] = Entry((name,), query)
                found[f"{block}v_bias"] = Entry((name,), value)
    return found


def config_of(weights: Weights, settings: Settings) -> dict[str, Any]:
    """The config keys that describe the model, from its sizes; empty if unknown."""
    kernel = find(weights, "patch_embed.proj.weight", 4)
    has_gate = any(f"blocks.0.mlp.{name}.weight" in weights for name in ("w3", "fc1_g"))
    size = _SIZES.get((len(kernel), children(weights, "blocks."), has_gate))
    biases = "_qkvb" if _has_biases(weights) else ""
    name = f"vit_{size}_patch{kernel.shape[-1]}_dinov3{biases}" if size else None
    return timm_models.config(settings, name)


def _target(name: str) -> str | None:
    if name.startswith(_LEFT_OUT) or name.endswith((_BIAS, ".bias_mask")):
        return None
    for theirs, ours in _PARTS.items():
        name = name.replace(theirs, ours)
    return f"backbone.model.{name}"


def _has_biases(weights: Weights) -> bool:
    """Whether a query or a value has a bias other than 0."""
    if "blocks.0.attn.q_bias" in weights:
        return True
    biases = [tensor.chunk(3) for name, tensor in weights.items() if name.endswith(_BIAS)]
    return any(torch.any(query != 0) or torch.any(value != 0) for query, _, value in biases)
