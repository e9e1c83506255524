"""The segmentation head: a pixel decoder and a transformer decoder."""

from __future__ import annotations

from typing import Any

import torch
from detectron2.config import CfgNode, configurable
from detectron2.layers import ShapeSpec
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY
from torch import nn

from ddep.errors import UserError
from ddep.modeling.pixel_decoder import build_pixel_decoder
from ddep.modeling.transformer_decoder import MULTI_SCALE, build_transformer_decoder


@SEM_SEG_HEADS_REGISTRY.register()
class MaskFormerHead(nn.Module):
    """Predicts classes and masks from a backbone's features.

    Args:
        num_classes: number of classes K, "no object" not counted.
        pixel_decoder: see :func:`ddep.modeling.pixel_decoder.build_pixel_decoder`.
        transformer_predictor: see
            :func:`ddep.modeling.transformer_decoder.build_transformer_decoder`.
        transformer_in_feature: what the transformer decoder attends to:
            ``multi_scale_pixel_decoder`` (all scales of the pixel decoder), ``transformer_encoder``
            (its encoded feature), ``pixel_embedding`` (the mask features) or the name of one of the
            backbone's features.
    """

    _version = 2

    @configurable
    def __init__(
        self,
        *,
        num_classes: int,
        pixel_decoder: nn.Module,
        transformer_predictor: nn.Module,
        transformer_in_feature: str,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.pixel_decoder = pixel_decoder
        self.predictor = transformer_predictor
        self.transformer_in_feature = transformer_in_feature

    @property
    def num_queries(self) -> int:
        """Q, the number of classes and masks predicted for each image."""
        return self.predictor.num_queries

    @classmethod
    def from_config(cls, cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> dict[str, Any]:
        """Build both decoders from MODEL.SEM_SEG_HEAD and MODEL.MASK_FORMER.

        Raises:
            UserError: there is no such TRANSFORMER_IN_FEATURE, or a decoder cannot be built.
        """
        in_channels = transformer_in_channels(cfg, input_shape)
        return {
            "num_classes": cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES,
            "pixel_decoder": build_pixel_decoder(cfg, input_shape),
            "transformer_predictor": build_transformer_decoder(cfg, in_channels),
            "transformer_in_feature": cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE,
        }

    def forward(
        self, features: dict[str, torch.Tensor], **predictor_arguments: Any
    ) -> dict[str, Any]:
        """Predict from a backbone's features.

        Args:
            features: name -> (B, channels, H/stride, W/stride).
            predictor_arguments: what the transformer decoder takes besides features, such as the
                number of frames of a clip.

        Returns:
            ``pred_logits`` (B, Q, K+1), ``pred_masks`` (B, Q, H/4, W/4), both logits, and
            ``aux_outputs``, a list of dicts with the same of earlier layers, empty in evaluation;
            and what else the transformer decoder returns.
        """
        return predict_masks(
            features,
            self.pixel_decoder,
            self.predictor,
            self.transformer_in_feature,
            **predictor_arguments,
        )

    def _load_from_state_dict(
        self, state_dict: dict[str, torch.Tensor], prefix: str, local_metadata: dict, *args: Any
    ) -> None:
        """As :meth:`torch.nn.Module._load_from_state_dict`, old names included."""
        rename_version_1(state_dict, prefix, local_metadata)
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


def predict_masks(
    features: dict[str, torch.Tensor],
    pixel_decoder: nn.Module,
    predictor: nn.Module,
    in_feature: str,
    **predictor_arguments: Any,
) -> dict[str, Any]:
    """Run both decoders on a backbone's features; see :class:`MaskFormerHead`.

    Returns:
        What the transformer decoder ``predictor`` returns.
    """
    mask_features, encoded, scales = pixel_decoder(features)
    choices = {
        **features,
        MULTI_SCALE: scales,
        "transformer_encoder": encoded,
        "pixel_embedding": mask_features,
    }
    return predictor(choices[in_feature], mask_features, **predictor_arguments)


def rename_version_1(
    state_dict: dict[str, torch.Tensor], prefix: str, local_metadata: dict
) -> None:
    """Rename the pixel decoder's weights in a version-1 checkpoint of a head, in place.

    Version 1 has them beside ``predictor``; they go below ``pixel_decoder``. Keys that are already
    there stay, because a checkpoint with new names may lack its version.
    """
    if local_metadata.get("version", 1) >= 2:
        return
    new = (f"{prefix}pixel_decoder.", f"{prefix}predictor.")
    for key in list(state_dict):
        if key.startswith(prefix) and not key.startswith(new):
            state_dict[new[0] + key.removeprefix(prefix)] = state_dict.pop(key)


def transformer_in_channels(cfg: CfgNode, input_shape: dict[str, ShapeSpec]) -> int:
    """Channels of MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE.

    Raises:
        UserError: there is no such feature.
    """
    head, in_feature = cfg.MODEL.SEM_SEG_HEAD, cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE
    channels = {name: shape.channels for name, shape in input_shape.items()}
    channels |= {MULTI_SCALE: head.CONVS_DIM, "pixel_embedding": head.MASK_DIM}
    if head.PIXEL_DECODER_NAME != "BasePixelDecoder":  # which encodes nothing
        channels["transformer_encoder"] = head.CONVS_DIM
    if in_feature not in channels:
        raise UserError(
            f"MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE is {in_feature!r}; with "
            f"{head.PIXEL_DECODER_NAME} expected one of {', '.join(channels)}"
        )
    return channels[in_feature]
