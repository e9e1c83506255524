"""Checks of the config keys of DETR."""

from __future__ import annotations

import math

from detectron2.config import CfgNode

from ddep.errors import UserError

_POSITION_EMBEDDINGS = ("sine", "learned")


def check_detr_config(detr: CfgNode) -> None:
    """Check MODEL.DETR.

    Raises:
        UserError: a value that is out of range.
    """
    divisor = math.lcm(4, detr.NHEADS)
    if detr.HIDDEN_DIM % divisor:
        raise UserError(
            f"MODEL.DETR.HIDDEN_DIM is {detr.HIDDEN_DIM}; expected a multiple of 4 (position "
            f"encoding) and of MODEL.DETR.NHEADS {detr.NHEADS}"
        )
    for key, least in (
        ("NUM_CLASSES", 1),
        ("NUM_OBJECT_QUERIES", 1),
        ("DEC_LAYERS", 1),
        ("ENC_LAYERS", 0),
        ("L1_WEIGHT", 0),
        ("GIOU_WEIGHT", 0),
        ("NO_OBJECT_WEIGHT", 0),
    ):
        if detr[key] < least:
            raise UserError(f"MODEL.DETR.{key} is {detr[key]}; expected at least {least}")
    if detr.POSITION_EMBEDDING not in _POSITION_EMBEDDINGS:
        raise UserError(
            f"MODEL.DETR.POSITION_EMBEDDING is {detr.POSITION_EMBEDDING!r}; expected "
            f"{' or '.join(_POSITION_EMBEDDINGS)}"
        )


def check_mask_head_config(cfg: CfgNode) -> None:
    """Check the keys that the mask head needs, if MODEL.MASK_ON.

    Raises:
        UserError: a value that it cannot work with.
    """
    detr = cfg.MODEL.DETR
    if not cfg.MODEL.MASK_ON:
        if detr.FROZEN_WEIGHTS:
            raise UserError(
                f"MODEL.DETR.FROZEN_WEIGHTS is {detr.FROZEN_WEIGHTS}, whose detector stays as it "
                "is, but MODEL.MASK_ON is False, so that nothing would learn; set MODEL.MASK_ON to "
                "True, or name the file in MODEL.WEIGHTS"
            )
        return
    # Of its group norms, which have up to eight groups.
    widths = [detr.HIDDEN_DIM + detr.NHEADS, *(detr.HIDDEN_DIM // n for n in (2, 4, 8, 16))]
    if detr.HIDDEN_DIM % 16 or widths[0] % 8 or any(width % min(8, width) for width in widths):
        raise UserError(
            f"MODEL.DETR.HIDDEN_DIM is {detr.HIDDEN_DIM} and MODEL.DETR.NHEADS {detr.NHEADS}; "
            "MODEL.MASK_ON needs 16, 32, 64 or a multiple of 128 channels, and together with the "
            "heads a multiple of 8"
        )


def mask_features(cfg: CfgNode, names: list[str]) -> list[str]:
    """The names of the features that the mask head takes, coarse to fine; none without it.

    Args:
        cfg: reads MODEL.MASK_ON.
        names: of all features of the backbone, fine to coarse.

    Raises:
        UserError: there are too few.
    """
    if not cfg.MODEL.MASK_ON:
        return []
    if len(names) < 4:
        raise UserError(
            f"the backbone's features are {', '.join(names)}; MODEL.MASK_ON needs three finer ones "
            "besides the last (MODEL.RESNETS.OUT_FEATURES res2, res3, res4, res5)"
        )
    return names[-2:-5:-1]
