"""Choose the losses and the matching that a config asks for."""

from __future__ import annotations

from detectron2.config import CfgNode

from ddep.errors import UserError
from ddep.modeling.clip_criterion import ClipCriterion, ClipMaskCosts
from ddep.modeling.criterion import SetCriterion
from ddep.modeling.mask_costs import DenseMaskCosts, PointMaskCosts
from ddep.modeling.mask_losses import DenseMaskLosses, PointMaskLosses
from ddep.modeling.matcher import HungarianMatcher
from ddep.modeling.transformer_decoder import is_mask_former


def mask_loss_name(cfg: CfgNode) -> str:
    """The mask loss that ``MODEL.DDEP.MASK_LOSS`` asks for: ``points`` or ``dense``.

    MaskFormer's and Mask2Former's configs do not have the key: ``auto`` is what each trains with.

    Raises:
        UserError: the key has another value, or there is no such transformer decoder.
    """
    name = cfg.MODEL.DDEP.MASK_LOSS
    if name == "auto":
        return "dense" if is_mask_former(cfg) else "points"
    if name not in ("points", "dense"):
        raise UserError(f"MODEL.DDEP.MASK_LOSS is {name!r}; expected auto, points or dense")
    return name


def build_criterion(
    cfg: CfgNode, num_classes: int, criterion_class: type[SetCriterion] = SetCriterion
) -> SetCriterion:
    """Build the criterion from MODEL.MASK_FORMER and MODEL.DDEP.MASK_LOSS.

    Args:
        cfg: the config.
        num_classes: K, without the no-object class.
        criterion_class: what to build; :class:`ClipCriterion` has losses at points.

    Raises:
        UserError: see :func:`mask_loss_name`; a :class:`ClipCriterion` with dense losses.
    """
    mask_former = cfg.MODEL.MASK_FORMER
    clips = issubclass(criterion_class, ClipCriterion)
    if mask_loss_name(cfg) == "dense":
        if clips:
            raise UserError(
                f"MODEL.DDEP.MASK_LOSS is {cfg.MODEL.DDEP.MASK_LOSS!r} (dense), but "
                f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}, whose losses are at "
                "points; set it to points"
            )
        mask_costs, mask_losses = DenseMaskCosts(), DenseMaskLosses()
    else:
        costs_class = ClipMaskCosts if clips else PointMaskCosts
        mask_costs = costs_class(mask_former.TRAIN_NUM_POINTS)
        mask_losses = PointMaskLosses(
            num_points=mask_former.TRAIN_NUM_POINTS,
            oversample_ratio=mask_former.OVERSAMPLE_RATIO,
            importance_sample_ratio=mask_former.IMPORTANCE_SAMPLE_RATIO,
        )
    matcher = HungarianMatcher(
        mask_costs=mask_costs,
        cost_class=mask_former.CLASS_WEIGHT,
        cost_mask=mask_former.MASK_WEIGHT,
        cost_dice=mask_former.DICE_WEIGHT,
    )
    return criterion_class(
        num_classes,
        matcher=matcher,
        mask_losses=mask_losses,
        class_weight=mask_former.CLASS_WEIGHT,
        mask_weight=mask_former.MASK_WEIGHT,
        dice_weight=mask_former.DICE_WEIGHT,
        no_object_weight=mask_former.NO_OBJECT_WEIGHT,
        # Both decoders make DEC_LAYERS predictions, the last of which is the result.
        num_aux_outputs=mask_former.DEC_LAYERS - 1 if mask_former.DEEP_SUPERVISION else 0,
    )
