"""Find the part of a model that a weight belongs to by its name.

The names are Mask2Former's and detectron2's, with ``denoising_head`` added. ``backbone`` is the
image encoder: DDeP freezes it, and BACKBONE_MULTIPLIER scales its learning rate. An FPN below
``backbone`` is a decoder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ddep.errors import UserError

# Follows from the config and is not learned: criterion.empty_weight, which is
# MODEL.MASK_FORMER.NO_OBJECT_WEIGHT. It is saved, as in Mask2Former, but never loaded.
CONFIGURED = ("criterion",)

# The groups that fine-tuning can take from pretraining (MODEL.DDEP.TRANSFER).
TRANSFERABLE = ("backbone", "encoder", "fpn", "mask_features")

# A group, and a pattern for the start of its names; the first match counts.
_PATTERNS = (
    # detectron2's FPN around a backbone, which is `bottom_up`, and DeepLabV3+'s decoder.
    ("fpn", r"backbone\.(fpn_(lateral|output)\d+|top_block)\."),
    ("fpn", r"sem_seg_head\.decoder\."),
    # What a frozen encoder's features are adapted with: Rein's tokens, and LoRA.
    ("adapter", r"backbone\.(rein\.|.*\.lora_[ab]$)"),
    ("backbone", r"backbone\."),
    ("encoder", r"sem_seg_head\.pixel_decoder\.(input_proj|transformer)\."),
    ("fpn", r"sem_seg_head\.pixel_decoder\.(adapter|layer)_\d+\."),
    ("mask_features", r"sem_seg_head\.pixel_decoder\.mask_features\."),
    ("predictor", r"sem_seg_head\.predictor\."),
    ("proposal_generator", r"proposal_generator\."),
    ("roi_heads", r"roi_heads\."),
    ("head", r"(head|classifier)\."),
    ("criterion", r"criterion\."),
    ("denoising_head", r"denoising_head\."),
)
# In the order of tables.
GROUPS = (
    *TRANSFERABLE,
    "adapter",
    *("predictor", "proposal_generator", "roi_heads", "head", "criterion", "denoising_head"),
    "other",
)


def group_of(name: str, own: Mapping[str, str] | None = None) -> str:
    """The group of the weight called ``name``: one of :data:`GROUPS`, or of ``own``.

    Args:
        name: full name of a parameter or buffer.
        own: pattern for the start of names -> group; comes before the usual patterns. See
            :func:`own_groups`.
    """
    patterns = [(group, start) for start, group in (own or {}).items()]
    return next(
        (group for group, start in (*patterns, *_PATTERNS) if re.match(start, name)), "other"
    )


def own_groups(model: object) -> Mapping[str, str]:
    """The attribute ``weight_groups`` of the class of ``model``; empty by default.

    A model whose encoder is called ``trunk`` and contains its neck has
    ``weight_groups = {r"trunk\\.neck\\.": "fpn", r"trunk\\.": "backbone"}``.
    """
    return getattr(model, "weight_groups", {})


def check_transfer(groups: Iterable[str]) -> None:
    """Raise :class:`UserError` if not all of ``groups`` are in :data:`TRANSFERABLE`."""
    unknown = [group for group in groups if group not in TRANSFERABLE]
    if unknown:
        raise UserError(
            f"MODEL.DDEP.TRANSFER has {', '.join(map(repr, unknown))}; "
            f"expected any of {', '.join(TRANSFERABLE)}"
        )
