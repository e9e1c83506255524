"""DINOv2's vision transformers (arXiv 2304.07193), as their authors publish them."""

from __future__ import annotations

from typing import Any

from ddep.checkpoint.conversion import timm_models, vit
from ddep.checkpoint.conversion.entries import Entries, Entry, Settings, Weights, find, renamed
from ddep.errors import UserError

LOOKED_FOR = "mask_token, pos_embed and blocks.0.ls1.gamma"

# The linear layers of the giant's SwiGLU.
_SWIGLU = {".mlp.w12.": ".mlp.fc1.", ".mlp.w3.": ".mlp.fc2."}


def recognises(weights: Weights) -> bool:
    """Whether these are the weights of a DINOv2."""
    return {"mask_token", "pos_embed", "blocks.0.ls1.gamma"} <= weights.keys()


def entries(weights: Weights, settings: Settings) -> Entries:
    """The weights under timm's names, below ``backbone.model.``.

    timm's model with registers has no position embedding of the class token, so it is added to the
    token here. The last norm and the mask token, which only training needs, are left out.

    Raises:
        UserError: a token or the position embedding is missing or has another shape.
    """
    found = renamed(weights, _target)
    if "register_tokens" in weights:
        token, positions = find(weights, "cls_token", 3), find(weights, "pos_embed", 3)
        if token.shape != positions[:, :1].shape:
            raise UserError(
                f"cls_token has shape {tuple(token.shape)} and pos_embed {tuple(positions.shape)}; "
                "expected the same number of channels"
            )
        found["backbone.model.cls_token"] = Entry(
            ("cls_token", "pos_embed"), token + positions[:, :1]
        )
        found["backbone.model.pos_embed"] = Entry(("pos_embed",), positions[:, 1:])
    return found


def _target(name: str) -> str | None:
    if name == "mask_token" or name.startswith(("norm.", "head.")):
        return None
    for theirs, ours in _SWIGLU.items():
        name = name.replace(theirs, ours)
    return f"backbone.model.{name.replace('register_tokens', 'reg_token')}"


def config_of(weights: Weights, settings: Settings) -> dict[str, Any]:
    """The config keys that describe the model, from its width and depth; empty if unknown."""
    size, patch = vit.size_of(weights)
    has_registers = "register_tokens" in weights
    return timm_models.config({}, vit.dinov2_name(size, patch, has_registers) if size else None)
