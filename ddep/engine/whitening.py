"""Build and check what MODEL.ISW adds to training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.config import CfgNode
from torch import nn

from ddep.config_checks import check_range
from ddep.data.mapper_registry import mapper_class
from ddep.data.photometric import check_color_jitter
from ddep.errors import UserError
from ddep.modeling.backbone import WHITENED
from ddep.modeling.whitened_model import WhitenedModel
from ddep.tasks import task_of


def whitens(cfg: CfgNode) -> bool:
    """Whether training has the whitening loss."""
    return cfg.MODEL.BACKBONE.NAME in WHITENED and cfg.MODEL.ISW.WEIGHT != 0


def check_whitening(cfg: CfgNode) -> None:
    """Check MODEL.ISW, if training has its loss.

    Raises:
        UserError: an impossible value, or a model that cannot have the loss.
    """
    if not whitens(cfg):
        return
    isw = cfg.MODEL.ISW
    for key, least in (("START_ITER", 1), ("MEASURED_ITERS", 1), ("CLUSTERS", 2)):
        if not (isinstance(isw[key], int) and isw[key] >= least):
            raise UserError(
                f"MODEL.ISW.{key} is {isw[key]!r}; expected a whole number of at least {least}"
            )
    if not isw.WEIGHT > 0:
        raise UserError(f"MODEL.ISW.WEIGHT is {isw.WEIGHT}; expected a number of at least 0")
    check_color_jitter("MODEL.ISW.COLOR_JITTER", isw.COLOR_JITTER)
    check_range("MODEL.ISW.BLUR_SIGMA", isw.BLUR_SIGMA)
    task = task_of(cfg)
    reason = ""
    if mapper_class(cfg.INPUT.DATASET_MAPPER_NAME).needs_labels is None:
        reason = "images of denoising are noisy, and their colours are not what changes features"
    elif task.freezes_encoder(cfg):
        reason = f"{task.freeze_key} keeps the backbone as it is"
    elif cfg.MODEL.DDEP.COMPILE:
        reason = "with MODEL.DDEP.COMPILE its layers do not show their features"
    if reason:
        raise UserError(
            f"MODEL.ISW.WEIGHT is {isw.WEIGHT}, but {reason}; set MODEL.ISW.WEIGHT to 0 for no "
            "whitening loss"
        )


def build_whitened_model(
    cfg: CfgNode,
    model: nn.Module,
    trained: nn.Module,
    normalisers: Callable[[list[dict[str, Any]]], dict[str, float]] | None,
) -> WhitenedModel | None:
    """Put ``trained`` into what adds the whitening loss; None if training has none.

    Args:
        cfg: the whole config.
        model: on its device.
        trained: maps a batch to losses: ``model``, or what has it inside.
        normalisers: of ``trained``.
    """
    return WhitenedModel(cfg, model, trained, normalisers) if whitens(cfg) else None
