"""Which part of the model a weight belongs to, by its name.

The names are Mask2Former's, with ``denoising_head`` added.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from ddep.errors import UserError

# What follows from the config and is not learned: criterion.empty_weight, which is
# MODEL.MASK_FORMER.NO_OBJECT_WEIGHT. It is saved, as Mask2Former does, but never loaded.
CONFIGURED = ("criterion",)

# What fine-tuning can take over from pretraining (MODEL.DDEP.TRANSFER).
TRANSFERABLE = ("backbone", "encoder", "fpn", "mask_features")

_PATTERNS = {
    "backbone": r"backbone\.",
    "encoder": r"sem_seg_head\.pixel_decoder\.(input_proj|transformer)\.",
    "fpn": r"sem_seg_head\.pixel_decoder\.(adapter|layer)_\d+\.",
    "mask_features": r"sem_seg_head\.pixel_decoder\.mask_features\.",
    "predictor": r"sem_seg_head\.predictor\.",
    "criterion": r"criterion\.",
    "denoising_head": r"denoising_head\.",
}
GROUPS = (*_PATTERNS, "other")


def group_of(name: str) -> str:
    """The group of the weight called ``name``, one of :data:`GROUPS`."""
    return next((group for group, start in _PATTERNS.items() if re.match(start, name)), "other")


def check_transfer(groups: Iterable[str]) -> None:
    """Raise :class:`UserError` if not all of ``groups`` are in :data:`TRANSFERABLE`."""
    unknown = [group for group in groups if group not in TRANSFERABLE]
    if unknown:
        raise UserError(
            f"MODEL.DDEP.TRANSFER has {', '.join(map(repr, unknown))}; "
            f"expected any of {', '.join(TRANSFERABLE)}"
        )
