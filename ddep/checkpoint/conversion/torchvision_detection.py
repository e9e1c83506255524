"""torchvision's Faster R-CNN and Mask R-CNN with a ResNet and FPN (``*_resnet50_fpn``)."""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor

from ddep.checkpoint.conversion import resnet
from ddep.checkpoint.conversion.coco_classes import THINGS, class_ids
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

LOOKED_FOR = "backbone.body.*, backbone.fpn.*, rpn.head.* and roi_heads.box_predictor.*"

_BODY = "backbone.body."
# Their names, ours, and what to add to the number in them. The files that torchvision publishes
# have the names of versions before 0.13, without the ".0".
_ROWS = [
    (re.compile(rf"{theirs}\.(?P<kind>weight|bias)"), ours, offset)
    for theirs, ours, offset in (
        (r"backbone\.fpn\.inner_blocks\.(?P<number>\d)(\.0)?", "backbone.fpn_lateral#", 2),
        (r"backbone\.fpn\.layer_blocks\.(?P<number>\d)(\.0)?", "backbone.fpn_output#", 2),
        (r"rpn\.head\.conv(\.0\.0)?", "proposal_generator.rpn_head.conv", 0),
        (r"rpn\.head\.cls_logits", "proposal_generator.rpn_head.objectness_logits", 0),
        (r"rpn\.head\.bbox_pred", "proposal_generator.rpn_head.anchor_deltas", 0),
        (r"roi_heads\.box_head\.fc6", "roi_heads.box_head.fc1", 0),
        (r"roi_heads\.box_head\.fc7", "roi_heads.box_head.fc2", 0),
        (r"roi_heads\.box_predictor\.cls_score", "roi_heads.box_predictor.cls_score", 0),
        (r"roi_heads\.box_predictor\.bbox_pred", "roi_heads.box_predictor.bbox_pred", 0),
        (r"roi_heads\.mask_head\.mask_fcn(?P<number>\d)", "roi_heads.mask_head.mask_fcn#", 0),
        (r"roi_heads\.mask_head\.(?P<number>\d)\.0", "roi_heads.mask_head.mask_fcn#", 1),
        (r"roi_heads\.mask_predictor\.conv5_mask", "roi_heads.mask_head.deconv", 0),
        (r"roi_heads\.mask_predictor\.mask_fcn_logits", "roi_heads.mask_head.predictor", 0),
    )
]
# Modules with a part for each class, and whether detectron2 has one for the background.
_BY_CLASS = {
    "roi_heads.box_predictor.cls_score": True,
    "roi_heads.box_predictor.bbox_pred": False,
    "roi_heads.mask_head.predictor": False,
}
# detectron2 adds this to the variance of a norm.
_EPS = 1e-5

# Common keys of the models, except for sizes. These are torchvision's own settings, except that it
# resizes images without smoothing.
_CONFIG: dict[str, Any] = {
    "MODEL.META_ARCHITECTURE": "GeneralizedRCNN",
    "MODEL.BACKBONE.NAME": "build_resnet_fpn_backbone",
    "MODEL.FPN.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.ANCHOR_GENERATOR.NAME": "TorchvisionAnchorGenerator",
    "MODEL.ANCHOR_GENERATOR.SIZES": [[32], [64], [128], [256], [512]],
    "MODEL.RPN.IN_FEATURES": ["p2", "p3", "p4", "p5", "p6"],
    "MODEL.RPN.PRE_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.PRE_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.POST_NMS_TOPK_TRAIN": 2000,
    "MODEL.RPN.POST_NMS_TOPK_TEST": 1000,
    "MODEL.RPN.SMOOTH_L1_BETA": 1 / 9,
    "MODEL.ROI_HEADS.NAME": "StandardROIHeads",
    "MODEL.ROI_HEADS.IN_FEATURES": ["p2", "p3", "p4", "p5"],
    "MODEL.ROI_BOX_HEAD.NAME": "FastRCNNConvFCHead",
    "MODEL.ROI_BOX_HEAD.NUM_FC": 2,
    "MODEL.ROI_BOX_HEAD.POOLER_RESOLUTION": 7,
    "MODEL.ROI_BOX_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_BOX_HEAD.POOLER_SAMPLING_RATIO": 2,
    "MODEL.ROI_BOX_HEAD.SMOOTH_L1_BETA": 1 / 9,
}
_MASK_CONFIG: dict[str, Any] = {
    "MODEL.ROI_MASK_HEAD.NAME": "MaskRCNNConvUpsampleHead",
    "MODEL.ROI_MASK_HEAD.NUM_CONV": 4,
    "MODEL.ROI_MASK_HEAD.POOLER_RESOLUTION": 14,
    "MODEL.ROI_MASK_HEAD.POOLER_TYPE": "ROIAlign",
    "MODEL.ROI_MASK_HEAD.POOLER_SAMPLING_RATIO": 2,
}


def recognises(weights: Weights) -> bool:
    """Whether there is a detector with torchvision's names, of any variant."""
    starts = ("backbone.fpn.inner_blocks.0.", "rpn.head.conv.", "roi_heads.box_predictor.")
    return all(any(name.startswith(start) for name in weights) for start in starts)


def entries(weights: Weights, settings: Settings) -> Entries:
    """All weights under detectron2's names.

    torchvision's classes start with the background; in detectron2 it is the last class and has
    neither boxes nor masks. Of COCO's 91 classes, the 80 that exist are kept, so that the softmax
    is only over these and the background.

    In the models that torchvision publishes, and in those fine-tuned from them, (frozen) batch
    norms add nothing to the variance. detectron2 adds 1e-5, which the scales compensate.

    Raises:
        UserError: the backbone is not a ResNet, or the model is a newer variant (``_v2``).
    """
    _check_variant(weights)
    found = renamed(weights, _target)
    outputs = _outputs(weights)
    order = _order(outputs, settings)
    for module, has_background in _BY_CLASS.items():
        for name in (f"{module}.weight", f"{module}.bias"):
            if name in found:
                [source] = found[name].sources
                tensor = _by_class(source, found[name].tensor, outputs, order, has_background)
                found[name] = Entry((source,), tensor)
    if not any(name.endswith(".num_batches_tracked") for name in weights):
        _compensate_eps(found)
    return found


def config_of(weights: Weights, settings: Settings) -> dict[str, Any]:
    """The config keys that describe the model, with torchvision's own settings.

    Raises:
        UserError: see :func:`entries`.
    """
    _check_variant(weights)
    body = {n.removeprefix(_BODY): t for n, t in weights.items() if n.startswith(_BODY)}
    fpn = next(n for n in weights if _target(n) == "backbone.fpn_output2.weight")
    outputs = _outputs(weights)
    config = {
        **_CONFIG,
        **resnet.config_of(body, {}),
        "MODEL.BACKBONE.NAME": _CONFIG["MODEL.BACKBONE.NAME"],
        "MODEL.FPN.OUT_CHANNELS": len(find(weights, fpn, 4)),
        "MODEL.ROI_HEADS.NUM_CLASSES": len(_order(outputs, settings)),
        "MODEL.ROI_BOX_HEAD.FC_DIM": len(find(weights, "roi_heads.box_head.fc6.weight", 2)),
        "MODEL.MASK_ON": _has_masks(weights),
    }
    if config["MODEL.MASK_ON"]:
        deconvolution = find(weights, "roi_heads.mask_predictor.conv5_mask.weight", 4)
        config |= {**_MASK_CONFIG, "MODEL.ROI_MASK_HEAD.CONV_DIM": deconvolution.shape[1]}
    return config


def _target(name: str) -> str | None:
    if name.startswith(_BODY):
        inner = resnet.detectron2_name(name.removeprefix(_BODY))
        return inner and f"backbone.bottom_up.{inner}"
    for theirs, ours, offset in _ROWS:
        match = theirs.fullmatch(name)
        if match:
            number = match.groupdict().get("number")
            filled = ours.replace("#", str(int(number) + offset)) if number else ours
            return f"{filled}.{match['kind']}"
    return None


def _check_variant(weights: Weights) -> None:
    body = {n.removeprefix(_BODY): t for n, t in weights.items() if n.startswith(_BODY)}
    if not resnet.recognises(body):
        raise UserError(
            f"the backbone of this torchvision detector is no ResNet: found "
            f"{', '.join([f'{_BODY}{name}' for name in body][:3]) or f'nothing below {_BODY}'}; "
            "expected fasterrcnn_resnet50_fpn or maskrcnn_resnet50_fpn"
        )
    for name in ("backbone.fpn.inner_blocks.0.1.weight", "rpn.head.conv.1.0.weight"):
        if name in weights:
            raise UserError(
                f"{name} belongs to a newer variant of torchvision's detectors (_v2); expected "
                "fasterrcnn_resnet50_fpn or maskrcnn_resnet50_fpn"
            )


def _has_masks(weights: Weights) -> bool:
    return children(weights, "roi_heads.mask_predictor.") > 0


def _outputs(weights: Weights) -> int:
    """The number of classes, including the background."""
    return len(find(weights, "roi_heads.box_predictor.cls_score.weight", 2))


def _order(outputs: int, settings: Settings) -> list[int]:
    """The outputs of the classes that are kept. The first output is the background."""
    ids = class_ids(outputs, settings) if outputs == THINGS else None
    return ids or list(range(1, outputs))


def _by_class(
    name: str, tensor: Tensor, outputs: int, order: list[int], has_background: bool
) -> Tensor:
    """(outputs * n, ...) in torchvision's order of classes -> (classes * n, ...) in ours."""
    if not tensor.ndim or not len(tensor) or len(tensor) % outputs:
        raise UserError(
            f"{name} has shape {tuple(tensor.shape)}; expected a multiple of "
            f"{outputs} (the classes and the background) first"
        )
    if has_background:
        order = [*order, 0]
    return tensor.unflatten(0, (outputs, -1))[order].flatten(0, 1)


def _compensate_eps(found: Entries) -> None:
    """Let norms scale by ``weight / sqrt(variance)``, although detectron2 adds to the variance."""
    for name, entry in list(found.items()):
        variance = found.get(name.removesuffix("weight") + "running_var")
        if name.endswith(".norm.weight") and variance is not None:
            exact = variance.tensor.double()
            factor = torch.sqrt((exact + _EPS) / exact)
            tensor = (entry.tensor * factor).to(entry.tensor.dtype)
            found[name] = Entry(entry.sources + variance.sources, tensor)
