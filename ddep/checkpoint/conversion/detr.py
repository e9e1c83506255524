"""DETR's own checkpoints, for boxes and panoptic, and those of its detectron2 project."""

from __future__ import annotations

import re
from typing import Any

from ddep.checkpoint.conversion import detectron2_zoo, resnet
from ddep.checkpoint.conversion.coco_classes import select_classes
from ddep.checkpoint.conversion.entries import (
    Entries,
    Entry,
    Settings,
    Weights,
    children,
    find,
    renamed,
)
from ddep.errors import UserError

LOOKED_FOR = "query_embed.weight and backbone.0.*, alone or below detr."

# In main.py's files nothing or, with masks, "detr."; the detectron2 project puts "detr." before.
_WRAPPERS = re.compile(r"^(detr\.)*")
_TORCHVISION, _DETECTRON2 = "backbone.0.body.", "backbone.0.backbone."
# Learned positions; sines and cosines have no weights.
_POSITIONS = "backbone.1."
_BY_CLASS = ("class_embed.weight", "class_embed.bias", "criterion.empty_weight")
_KEPT = (
    *("transformer.", "input_proj.", "query_embed.", "class_embed.", "bbox_embed.", "criterion."),
    *("bbox_attention.", "mask_head."),
)
# Heads of the published models; only the mask head's weights tell their number.
_HEADS = 8


def recognises(weights: Weights) -> bool:
    """Whether these are the weights of DETR with a backbone that has its position encoding beside
    it (``backbone.0``)."""
    names = {_inner(name) for name in weights}
    return "query_embed.weight" in names and any(n.startswith("backbone.0.") for n in names)


def entries(weights: Weights, settings: Settings) -> Entries:
    """All weights under this project's names.

    Of outputs that are numbered by COCO's ids, those of the 80 or 133 classes are kept, in the
    order of detectron2's data sets; see :func:`ddep.checkpoint.conversion.coco_classes.class_ids`.

    Raises:
        UserError: the backbone is not a ResNet.
    """
    found = renamed(weights, _target)
    if "backbone.stem.conv1.weight" not in found:
        others = [name for name in map(_inner, weights) if name.startswith("backbone.0.")]
        raise UserError(
            "the backbone of this DETR is no ResNet of torchvision or detectron2: found "
            f"{', '.join(others[:2])}, ...; expected {_TORCHVISION}conv1.weight or "
            f"{_DETECTRON2}stem.conv1.weight"
        )
    for name in _BY_CLASS:
        if name in found:
            entry = found[name]
            found[name] = Entry(entry.sources, select_classes(entry.tensor, settings))
    return found


def config_of(weights: Weights, settings: Settings) -> dict[str, Any]:
    """The config keys that describe the model.

    Dilated models (DC5) have the same weights as others: nothing tells them apart.

    Raises:
        UserError: see :func:`entries` and :func:`described`.
    """
    return described({n: entry.tensor for n, entry in entries(weights, settings).items()})


def described(found: Weights) -> dict[str, Any]:
    """The config keys that follow from the shapes of the weights, under this project's names.

    Raises:
        UserError: a weight is missing or has another number of dimensions, or the ResNet is none of
            detectron2's.
    """
    backbone = detectron2_zoo.config_of(
        {name.removeprefix("backbone."): tensor for name, tensor in found.items()}, {}
    )
    if "MODEL.RESNETS.DEPTH" not in backbone:
        raise UserError("the backbone is a ResNet of no depth that we know (18, 34, 50, ...)")
    num_queries, hidden_dim = find(found, "query_embed.weight", 2).shape
    decoder = "transformer.decoder.layers."
    has_masks = "mask_head.lay1.weight" in found
    # The mask head's first layer takes a channel for each head, after those of the image.
    heads = find(found, "mask_head.lay1.weight", 4).shape[1] - hidden_dim if has_masks else _HEADS
    return {
        "MODEL.META_ARCHITECTURE": "Detr",
        **backbone,
        "MODEL.BACKBONE.FREEZE_AT": 2,
        "MODEL.DETR.NUM_CLASSES": len(find(found, "class_embed.bias", 1)) - 1,
        "MODEL.DETR.HIDDEN_DIM": hidden_dim,
        "MODEL.DETR.NUM_OBJECT_QUERIES": num_queries,
        "MODEL.DETR.NHEADS": heads,
        "MODEL.DETR.DIM_FEEDFORWARD": len(find(found, f"{decoder}0.linear1.bias", 1)),
        "MODEL.DETR.ENC_LAYERS": children(found, "transformer.encoder.layers."),
        "MODEL.DETR.DEC_LAYERS": children(found, decoder),
        "MODEL.DETR.PRE_NORM": "transformer.encoder.norm.weight" in found,
        "MODEL.DETR.POSITION_EMBEDDING": (
            "learned" if "position_embedding.row_embed.weight" in found else "sine"
        ),
        "MODEL.MASK_ON": has_masks,
    }


def _inner(name: str) -> str:
    return _WRAPPERS.sub("", name)


def _target(name: str) -> str | None:
    name = _inner(name)
    if name.startswith(_TORCHVISION):
        inner = resnet.detectron2_name(name.removeprefix(_TORCHVISION))
        return inner and f"backbone.{inner}"
    if name.startswith(_DETECTRON2):
        return f"backbone.{name.removeprefix(_DETECTRON2)}"
    if name.startswith(_POSITIONS):
        return f"position_embedding.{name.removeprefix(_POSITIONS)}"
    return name if name.startswith(_KEPT) else None
