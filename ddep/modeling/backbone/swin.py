"""Swin Transformer (Liu et al., 2021, arXiv 2103.14030) as a backbone for segmentation.

Parameters have the original names, which published Mask2Former checkpoints use below
``backbone.``.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import accumulate
from typing import Any

import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from torch import Tensor, nn

from ddep.errors import UserError
from ddep.modeling.backbone.swin_layers import PATCH_SIZE, PatchEmbed, SwinStage

FEATURES = ("res2", "res3", "res4", "res5")


@BACKBONE_REGISTRY.register()
class D2SwinTransformer(Backbone):
    """Swin Transformer with features res2 to res5, each normalised by its own LayerNorm."""

    @configurable
    def __init__(
        self,
        *,
        in_channels: int = 3,
        pretrain_img_size: int = 224,
        patch_size: int = PATCH_SIZE,
        embed_dim: int = 96,
        depths: Sequence[int] = (2, 2, 6, 2),
        num_heads: Sequence[int] = (3, 6, 12, 24),
        window_size: int = 7,
        mlp_ratio: float = 4.0,
        qkv_bias: bool = True,
        qk_scale: float | None = None,
        drop_rate: float = 0.0,
        attn_drop_rate: float = 0.0,
        drop_path_rate: float = 0.3,
        ape: bool = False,
        patch_norm: bool = True,
        out_features: Sequence[str] = FEATURES,
        use_checkpoint: bool = False,
    ) -> None:
        """Build the model with random weights; stages that no output needs are left out.

        The arguments are the keys of MODEL.SWIN (ddep/config_encoders.py) and the channels of the
        images.

        Raises:
            UserError: a value is out of range.
        """
        super().__init__()
        _check_stages(embed_dim, depths, num_heads)
        _check("PATCH_SIZE", patch_size, patch_size == PATCH_SIZE, "4, the stride of res2")
        _check("WINDOW_SIZE", window_size, window_size >= 1, "at least 1")
        _check("MLP_RATIO", mlp_ratio, mlp_ratio > 0, "a number above 0")
        _check("QK_SCALE", qk_scale, qk_scale is None or qk_scale > 0, "None or above 0")
        _check(
            "OUT_FEATURES",
            list(out_features),
            bool(out_features) and set(out_features) <= set(FEATURES),
            f"one or more of {', '.join(FEATURES)}",
        )
        rates = {
            "DROP_RATE": drop_rate,
            "ATTN_DROP_RATE": attn_drop_rate,
            "DROP_PATH_RATE": drop_path_rate,
        }
        for key, rate in rates.items():
            _check(key, rate, 0 <= rate < 1, "at least 0 and below 1")

        self.use_checkpoint = use_checkpoint
        self.patch_embed = PatchEmbed(in_channels, embed_dim, patch_norm)
        self.absolute_pos_embed = None
        if ape:
            side = pretrain_img_size // PATCH_SIZE
            _check("PRETRAIN_IMG_SIZE", pretrain_img_size, side >= 1, "at least 4")
            self.absolute_pos_embed = nn.Parameter(torch.empty(1, embed_dim, side, side))
            nn.init.trunc_normal_(self.absolute_pos_embed, std=0.02)
        self.pos_drop = nn.Dropout(drop_rate)

        blocks = sum(depths)
        drop_paths = [drop_path_rate * i / max(blocks - 1, 1) for i in range(blocks)]
        last = max(FEATURES.index(name) for name in out_features)
        self.layers = nn.ModuleList(
            SwinStage(
                dim=embed_dim * 2**i,
                window_size=window_size,
                drop_paths=drop_paths[sum(depths[:i]) : sum(depths[: i + 1])],
                merge=i < last,
                num_heads=num_heads[i],
                mlp_ratio=mlp_ratio,
                qkv_bias=qkv_bias,
                qk_scale=qk_scale,
                drop=drop_rate,
                attn_drop=attn_drop_rate,
            )
            for i in range(last + 1)
        )
        self._out_features = [name for name in FEATURES if name in out_features]
        self._out_feature_strides = {name: PATCH_SIZE * 2**i for i, name in enumerate(FEATURES)}
        self._out_feature_channels = {name: embed_dim * 2**i for i, name in enumerate(FEATURES)}
        for i, name in enumerate(FEATURES):
            if name in out_features:
                self.add_module(f"norm{i}", nn.LayerNorm(embed_dim * 2**i))
        self.apply(_init_linear)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Read the arguments from MODEL.SWIN and the number of image channels."""
        arguments = {key.lower(): value for key, value in cfg.MODEL.SWIN.items()}
        return {"in_channels": input_shape.channels, **arguments}

    @property
    def size_divisibility(self) -> int:
        """Images of any size work; multiples of this have exact strides."""
        return 32

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the features.

        Args:
            images: (B,3,H,W) float, normalised; any size.

        Returns:
            For each output feature of stride s, (B, C, ceil(H/s), ceil(W/s)).
        """
        tokens = self.patch_embed(images)
        if self.absolute_pos_embed is not None:
            positions = self.absolute_pos_embed
            if positions.shape[-2:] != tokens.shape[1:3]:
                positions = F.interpolate(positions, size=tokens.shape[1:3], mode="bicubic")
            tokens = tokens + positions.permute(0, 2, 3, 1)
        tokens = self.pos_drop(tokens)
        features = {}
        for i, stage in enumerate(self.layers):
            tokens = stage(tokens, recompute=self.use_checkpoint)
            if FEATURES[i] in self._out_features:
                feature = self.get_submodule(f"norm{i}")(tokens)
                features[FEATURES[i]] = feature.permute(0, 3, 1, 2).contiguous()
            if stage.downsample is not None:
                tokens = stage.downsample(tokens)
        return features

    def parameter_layers(self) -> dict[str, int]:
        """The layer of each parameter, by name: 0 for embeddings, then one for each block.

        What follows a stage's blocks (patch merging, the feature's norm) belongs to the last one.
        """
        ends = list(accumulate((len(stage.blocks) for stage in self.layers), initial=0))

        def layer(name: str) -> int:
            block = re.match(r"layers\.(\d+)\.blocks\.(\d+)\.", name)
            if block:
                return ends[int(block[1])] + 1 + int(block[2])
            after = re.match(r"(?:layers\.|norm)(\d+)\.", name)
            return ends[int(after[1]) + 1] if after else 0

        return {name: layer(name) for name, _ in self.named_parameters()}


def _init_linear(module: nn.Module) -> None:
    if isinstance(module, nn.Linear):
        nn.init.trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


def _check(key: str, found: object, valid: bool, expected: str) -> None:
    if not valid:
        raise UserError(f"MODEL.SWIN.{key} is {found!r}; expected {expected}")


def _check_stages(embed_dim: int, depths: Sequence[int], num_heads: Sequence[int]) -> None:
    for key, values in (("DEPTHS", depths), ("NUM_HEADS", num_heads)):
        valid = len(values) == len(FEATURES) and all(value >= 1 for value in values)
        _check(key, list(values), valid, "four numbers of at least 1, one for each stage")
    _check("EMBED_DIM", embed_dim, embed_dim >= 1, "at least 1")
    for i, heads in enumerate(num_heads):
        valid = embed_dim * 2**i % heads == 0
        expected = f"divisors of the stages' channels, and stage {i + 1} has {embed_dim * 2**i}"
        _check("NUM_HEADS", list(num_heads), valid, expected)
