"""Any encoder of timm (PyTorch Image Models) as a backbone for segmentation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone
from timm.models import group_parameters
from torch import Tensor

from ddep.errors import UserError
from ddep.modeling.backbone.lora import add_lora
from ddep.modeling.backbone.rein import Rein
from ddep.modeling.backbone.resize_tokens import resize_tokens
from ddep.modeling.backbone.timm_models import STRIDES, check_options, choose_features, create


@BACKBONE_REGISTRY.register()
class TimmBackbone(Backbone):
    """A model of timm with features res2 to res5.

    A hierarchical model (ConvNeXt, ResNet, EfficientNet, ...) gives its features at strides 4, 8,
    16 and 32. A plain one, whose blocks all have the same stride (DeiT, DINOv2, ...), gives the
    outputs of four blocks, resized to these strides without parameters.

    The parameters have timm's names below ``model.``: in a checkpoint of a whole model, timm's keys
    have the prefix ``backbone.model.``. Parts that the features do not need (the classifier, last
    norms) are left out. Weights are loaded only through MODEL.WEIGHTS.
    """

    @configurable
    def __init__(
        self,
        *,
        name: str,
        in_channels: int = 3,
        drop_path_rate: float = 0.0,
        patch_size: int = 0,
        out_indices: Sequence[int] = (),
        rein: Mapping[str, int] | None = None,
        lora: Mapping[str, float] | None = None,
    ) -> None:
        """Build the model with random weights.

        Args:
            name: timm's name of the model, such as ``convnext_tiny``.
            in_channels: channels of the images.
            drop_path_rate: stochastic depth rate.
            patch_size: side of the patches in pixels; 0 is the model's own.
            out_indices: which of the features that timm lists become res2 to res5, counted from 0:
                blocks of a plain model, whose later blocks are then left out, or stages. Empty:
                four evenly spaced blocks, or the first stage of each stride.
            rein: ``num_tokens`` and ``rank`` of :class:`Rein`, which refines the outputs of a plain
                model's blocks; None leaves them as they are.
            lora: ``rank`` and ``alpha`` of :class:`LoRALinear` in a plain model's attention.

        Raises:
            UserError: timm has no model of this name; the model has no features at these strides or
                takes one image size only; it has no stochastic depth, but a rate is given; it has
                no patches, but a patch size is given; indices of features that do not fit; or
                ``rein`` or ``lora`` for another model than a plain one.
        """
        super().__init__()
        check_options(name, drop_path_rate, patch_size)
        options = {"drop_path_rate": drop_path_rate, "patch_size": patch_size}
        self.model = create(name, in_channels, {k: v for k, v in options.items() if v})
        if not hasattr(self.model, "forward_intermediates"):
            raise UserError(
                f"MODEL.DDEP.TIMM.NAME {name}: timm {timm.__version__} gives no features of this"
                " model; expected one that has forward_intermediates; choose another or update timm"
            )
        info = self.model.feature_info
        strides = [level["reduction"] for level in info]
        self._indices, self._patch_size = choose_features(name, strides, list(out_indices))
        self.model.prune_intermediate_layers(self._indices, prune_norm=True, prune_head=True)

        self._out_features = list(STRIDES)
        self._out_feature_strides = STRIDES
        self._out_feature_channels = {
            feature: info[index]["num_chs"]
            for feature, index in zip(STRIDES, self._indices, strict=True)
        }
        self._check_other_size(name, in_channels)
        self._adapt(name, rein, lora)

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: ShapeSpec) -> dict[str, Any]:
        """Read the arguments from MODEL.DDEP.TIMM, MODEL.REIN and MODEL.LORA."""
        rein, lora = cfg.MODEL.REIN, cfg.MODEL.LORA
        return {
            "name": cfg.MODEL.DDEP.TIMM.NAME,
            "in_channels": input_shape.channels,
            "drop_path_rate": cfg.MODEL.DDEP.TIMM.DROP_PATH_RATE,
            "patch_size": cfg.MODEL.DDEP.TIMM.PATCH_SIZE,
            "out_indices": cfg.MODEL.DDEP.TIMM.OUT_INDICES,
            "rein": {"num_tokens": rein.TOKENS, "rank": rein.RANK} if rein.ENABLED else None,
            "lora": {"rank": lora.RANK, "alpha": lora.ALPHA} if lora.RANK else None,
        }

    @property
    def size_divisibility(self) -> int:
        """Images of any size work; multiples of this are not padded (but see plain models)."""
        return 32

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Compute the features.

        Images are padded with zeros at the right and the bottom to a multiple of 32 and, for plain
        models, of the patch. Features that cover only padding are cut off.

        Args:
            images: (B,3,H,W) float, normalised; any size.

        Returns:
            For each feature of stride s, (B, C, ceil(H/s), ceil(W/s)); its cell (i, j) is centred
            on pixel ((i + 0.5) s, (j + 0.5) s).
        """
        height, width = images.shape[-2:]
        images = _pad(_pad(images, 32), self._patch_size or 1)
        outputs = self.model.forward_intermediates(
            images, indices=self._indices, output_fmt="NCHW", intermediates_only=True
        )
        features = {}
        for (name, stride), feature in zip(STRIDES.items(), outputs, strict=True):
            if self._patch_size:
                feature = resize_tokens(feature, self._patch_size, stride)
            rows, columns = _cells(height, width, stride)
            features[name] = feature[..., :rows, :columns].contiguous()
        return features

    def parameter_layers(self) -> dict[str, int]:
        """The layer of each parameter, by name, as timm groups them: 0 for the stem, then blocks.

        Raises:
            UserError: timm does not know the layers of this model.
        """
        if not hasattr(self.model, "group_matcher"):
            raise UserError(
                f"SOLVER.LAYER_DECAY needs the layers of {type(self.model).__name__}, which timm "
                f"{timm.__version__} does not know; set it to 1.0"
            )
        layers = group_parameters(self.model, self.model.group_matcher(coarse=False), reverse=True)
        return {f"model.{name}": layer for name, layer in layers.items()}

    def _adapt(
        self, name: str, rein: Mapping[str, int] | None, lora: Mapping[str, float] | None
    ) -> None:
        """Add what refines or adapts the features of a frozen plain model."""
        if rein is not None:
            self._check_plain(name, "MODEL.REIN.ENABLED is True")
            self.rein = Rein(
                depth=len(self.model.blocks),
                channels=self.model.embed_dim,
                patch_size=self._patch_size,
                num_prefix_tokens=self.model.num_prefix_tokens,
                **rein,
            )
            self.rein.attach(self.model.blocks)
        if lora is not None:
            found = f"MODEL.LORA.RANK is {lora['rank']}"
            self._check_plain(name, found)
            try:
                add_lora(self.model.blocks, **lora)
            except ValueError as error:
                raise UserError(
                    f"{found}, but {name} cannot have it: {error}; set it to 0"
                ) from error

    def _check_plain(self, name: str, found: str) -> None:
        """Raise :class:`UserError` unless this is a plain vision transformer, as Rein needs."""
        parts = ("blocks", "embed_dim", "num_prefix_tokens")
        if self._patch_size is None or not all(hasattr(self.model, part) for part in parts):
            raise UserError(
                f"{found}, but {name} is not a plain vision transformer; choose another "
                "MODEL.DDEP.TIMM.NAME, such as vit_large_patch14_dinov2"
            )

    @torch.no_grad()
    def _check_other_size(self, name: str, in_channels: int) -> None:
        """Run a small image of an uncommon shape, because some models take one size only."""
        unit = self._patch_size or 32
        height, width = 3 * unit, 4 * unit
        expected = {
            feature: (channels, *_cells(height, width, STRIDES[feature]))
            for feature, channels in self._out_feature_channels.items()
        }
        self.eval()
        try:
            features = self(torch.zeros(1, in_channels, height, width))
        except (AssertionError, RuntimeError, ValueError) as error:
            raise UserError(
                f"MODEL.DDEP.TIMM.NAME {name} does not take images of any size, as it must"
                f" (timm on {height}x{width} pixels: {error!r})"
            ) from error
        self.train()
        found = {feature: tuple(output.shape[1:]) for feature, output in features.items()}
        if found != expected:
            raise UserError(
                f"MODEL.DDEP.TIMM.NAME {name} has features of {found} (channels, rows, columns) for"
                f" {height}x{width} pixels; expected {expected}; choose another model"
            )


def _pad(images: Tensor, multiple: int) -> Tensor:
    height, width = images.shape[-2:]
    return F.pad(images, (0, -width % multiple, 0, -height % multiple))


def _cells(height: int, width: int, stride: int) -> tuple[int, int]:
    return (height + stride - 1) // stride, (width + stride - 1) // stride
