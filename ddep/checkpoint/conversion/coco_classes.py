"""The outputs of models that number their classes by COCO's ids, which have gaps."""

from __future__ import annotations

import torch
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES

from ddep.checkpoint.conversion.entries import Settings

# Set in the settings of a format by the caller: the classes are no ids of COCO's and all stay.
KEEP_CLASSES = "keep_classes"

# Outputs of a model of things, whose ids go up to 90, and of DETR's panoptic models, although the
# ids of stuff end at 200. The id 0 is counted, a no-object output is not.
THINGS, PANOPTIC = 91, 250
# Number of outputs -> ids of the classes, in the order of detectron2's data sets.
_IDS = {
    THINGS: [category["id"] for category in COCO_CATEGORIES if category["isthing"]],
    PANOPTIC: [category["id"] for category in COCO_CATEGORIES],
}


def class_ids(outputs: int, settings: Settings) -> list[int] | None:
    """COCO's ids of the classes that exist, if the outputs are numbered by them.

    Args:
        outputs: their number, with id 0 and without the one that is no class.
        settings: of the format; see :data:`KEEP_CLASSES`.

    Returns:
        80 or 133 of them, or None: all outputs are classes.
    """
    return None if settings.get(KEEP_CLASSES) else _IDS.get(outputs)


def select_classes(tensor: torch.Tensor, settings: Settings) -> torch.Tensor:
    """Reduce (K + 1, ...), whose last row is no object, to the classes that exist.

    A softmax is then over these and no object. What the others took in training is next to
    nothing, because they were never right.
    """
    ids = class_ids(len(tensor) - 1, settings)
    return tensor if ids is None else tensor[[*ids, len(tensor) - 1]]
