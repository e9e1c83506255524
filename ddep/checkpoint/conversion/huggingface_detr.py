"""Hugging Face's DETR (``DetrForObjectDetection``, ``DetrForSegmentation``)."""

from __future__ import annotations

from typing import Any

from ddep.checkpoint.conversion import detr
from ddep.checkpoint.conversion.coco_classes import select_classes
from ddep.checkpoint.conversion.entries import Entries, Entry, Settings, Weights
from ddep.checkpoint.conversion.huggingface_backbone import processor_config
from ddep.checkpoint.conversion.huggingface_detr_names import detr_names
from ddep.checkpoint.conversion.huggingface_keys import RESNET_SETTINGS, ours, require, section
from ddep.errors import UserError

LOOKED_FOR = "model.query_position_embeddings.weight, alone or below detr."

_QUERIES = "model.query_position_embeddings.weight"
_DETR = "MODEL.DETR."
_SETTINGS: dict[str, tuple[str, Any]] = {
    "encoder_attention_heads": (f"{_DETR}NHEADS", 8),
    "dropout": (f"{_DETR}DROPOUT", 0.1),
    "auxiliary_loss": (f"{_DETR}DEEP_SUPERVISION", False),
    "bbox_loss_coefficient": (f"{_DETR}L1_WEIGHT", 5.0),
    "giou_loss_coefficient": (f"{_DETR}GIOU_WEIGHT", 2.0),
    "eos_coefficient": (f"{_DETR}NO_OBJECT_WEIGHT", 0.1),
}


def recognises(weights: Weights) -> bool:
    """Whether these are the weights of Hugging Face's DETR, with names of a file or of memory."""
    queries = {_QUERIES, f"detr.{_QUERIES}"} & weights.keys()
    return bool(queries) and any("class_labels_classifier." in name for name in weights)


def entries(weights: Weights, settings: Settings) -> Entries:
    """All weights under this project's names; classes as :func:`detr.entries`.

    Raises:
        UserError: a part of a weight is missing, or the backbone is no ResNet.
    """
    segmentation = f"detr.{_QUERIES}" in weights
    prefix = f"{'detr.' if segmentation else ''}model.backbone."
    backbone = [name for name in weights if name.startswith(prefix)]
    names = detr_names(
        segmentation=segmentation,
        timm=any(name.endswith(".layer1.0.conv1.weight") for name in backbone),
        in_memory=not any(name.startswith(f"{prefix}conv_encoder.") for name in backbone),
    )
    found = names.entries(weights)
    if "backbone.stem.conv1.weight" not in found:
        raise UserError(
            f"the backbone is neither timm's nor Hugging Face's ResNet: found "
            f"{', '.join(backbone[:2])}, ...; no other can be converted"
        )
    for name in ("class_embed.weight", "class_embed.bias"):
        if name in found:
            entry = found[name]
            found[name] = Entry(entry.sources, select_classes(entry.tensor, settings))
    return found


def config_of(weights: Weights, settings: Settings) -> dict[str, Any]:
    """The config keys that describe the model.

    Sizes come from the shapes of the weights. Other values, such as the number of attention heads,
    come from ``settings`` or are the defaults of Hugging Face's class.

    Raises:
        UserError: this project does not have this variant of the model.
    """
    expected = {
        "activation_function": "relu",
        "class_cost": 1,
        "decoder_attention_heads": settings.get("encoder_attention_heads", 8),
        "bbox_cost": settings.get("bbox_loss_coefficient", 5),
        "giou_cost": settings.get("giou_loss_coefficient", 2),
    }
    require(settings, expected, "our Detr has")
    told = section(settings, "backbone_config")
    require(told, {"hidden_act": "relu", "downsample_in_first_stage": False}, "our ResNet has")
    found = {name: entry.tensor for name, entry in entries(weights, settings).items()}
    config = {
        **detr.described(found),
        **ours({**_SETTINGS, **RESNET_SETTINGS}, {**told, **settings}),
        **processor_config(section(settings, "image_processor")),
    }
    if settings.get("dilation") or told.get("output_stride") == 16:
        config["MODEL.BACKBONE.NAME"] = "build_dc5_resnet_backbone"
    return config
