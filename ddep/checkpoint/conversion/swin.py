"""Swin Transformers (arXiv 2103.14030) with the names of their authors or of timm."""

from __future__ import annotations

import math
import re
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
from ddep.errors import UserError

LOOKED_FOR = "layers.0.blocks.0.attn.relative_position_bias_table and patch_embed.proj.weight"

_TABLE = "layers.{}.blocks.0.attn.relative_position_bias_table"
# Published windows have sides of 7 to 32 tokens. The index of window positions grows with the
# side's fourth power, so a damaged table must not ask for any size.
_MAX_WINDOW = 64


def recognises(weights: Weights) -> bool:
    """Whether these are the weights of a Swin (version 1)."""
    return "patch_embed.proj.weight" in weights and _TABLE.format(0) in weights


def entries(weights: Weights, settings: Settings) -> Entries:
    """The weights under the original's names, below ``backbone.``.

    timm (since 0.9) has patch merging at the start of a stage, the original at the end of the stage
    before. The classification head with its norm and the attention masks are left out.

    Raises:
        UserError: the file mixes both forms.
    """
    downsamples = {name.split(".")[1] for name in weights if re.match(r"layers\.\d+\.down", name)}
    # The original has none in its last stage, timm none in its first.
    is_timm = bool(downsamples) and "0" not in downsamples
    found = renamed(weights, _timm_target if is_timm else _target)
    if "absolute_pos_embed" in weights:
        found["backbone.absolute_pos_embed"] = Entry(
            ("absolute_pos_embed",), _as_map(weights["absolute_pos_embed"])
        )
    return found


def _target(name: str) -> str | None:
    if name.startswith(("norm.", "head.")) or name.endswith(".attn_mask"):
        return None
    return f"backbone.{name}"


def _timm_target(name: str) -> str | None:
    return _target(
        re.sub(r"^layers\.(\d+)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name)
    )


def _as_map(positions: torch.Tensor) -> torch.Tensor:
    """A classifier's (1, rows * columns, C), or a map -> (1, C, rows, columns)."""
    side = math.isqrt(positions.shape[1]) if positions.ndim == 3 else 0
    if positions.ndim == 3 and side**2 == positions.shape[1]:
        return positions.transpose(1, 2).unflatten(2, (side, side))
    if positions.ndim != 4 or positions.shape[2] != positions.shape[3]:
        raise UserError(
            f"absolute_pos_embed has shape {tuple(positions.shape)}; expected a square number of "
            "positions"
        )
    return positions


def config_of(weights: Weights, settings: Settings) -> dict[str, Any]:
    """The config keys that describe the model, from the shapes of its weights.

    The window's side w follows from the (2w - 1)^2 rows of the position tables, the number of heads
    from their columns.

    Raises:
        UserError: stages have different windows, or a shape that no Swin has.
    """
    stages = 0
    while _TABLE.format(stages) in weights:
        stages += 1
    tables = [find(weights, _TABLE.format(stage), 2) for stage in range(max(stages, 1))]
    windows = {(math.isqrt(len(table)) + 1) / 2 for table in tables}
    window = windows.pop()
    if windows or window != int(window) or not 1 <= window <= _MAX_WINDOW:
        raise UserError(
            f"position tables with {', '.join(str(len(table)) for table in tables)} rows; expected "
            f"(2w - 1)^2 for one window size w of at most {_MAX_WINDOW} in all stages"
        )
    width, _, patch_size, _ = find(weights, "patch_embed.proj.weight", 4).shape
    config = {
        "MODEL.BACKBONE.NAME": "D2SwinTransformer",
        "MODEL.SWIN.EMBED_DIM": width,
        "MODEL.SWIN.PATCH_SIZE": patch_size,
        "MODEL.SWIN.DEPTHS": [children(weights, f"layers.{s}.blocks.") for s in range(stages)],
        "MODEL.SWIN.NUM_HEADS": [table.shape[1] for table in tables],
        "MODEL.SWIN.WINDOW_SIZE": int(window),
        "MODEL.SWIN.MLP_RATIO": len(find(weights, "layers.0.blocks.0.mlp.fc1.weight", 2)) / width,
        "MODEL.SWIN.QKV_BIAS": "layers.0.blocks.0.attn.qkv.bias" in weights,
        "MODEL.SWIN.PATCH_NORM": "patch_embed.norm.weight" in weights,
        **input_config(settings),
    }
    if "absolute_pos_embed" in weights:
        positions = entries(weights, settings)["backbone.absolute_pos_embed"].tensor
        config |= {
            "MODEL.SWIN.APE": True,
            "MODEL.SWIN.PRETRAIN_IMG_SIZE": positions.shape[-1] * patch_size,
        }
    return config
