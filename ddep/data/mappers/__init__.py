"""Mappers: from a data set's record to what a model takes."""

from __future__ import annotations

from collections.abc import Callable

from detectron2.config import CfgNode

from ddep.data.mappers.base import Record
from ddep.data.mappers.denoising import DenoisingMapper
from ddep.data.mappers.instance import InstanceMapper
from ddep.data.mappers.panoptic import PanopticMapper
from ddep.data.mappers.semantic import SemanticMapper
from ddep.errors import UserError

# INPUT.DATASET_MAPPER_NAME. Mappers of one class differ in the augmentation alone.
MAPPERS = {
    "ddep_denoising": DenoisingMapper,
    "mask_former_semantic": SemanticMapper,
    "mask_former_panoptic": PanopticMapper,
    "mask_former_instance": InstanceMapper,
    "coco_panoptic_lsj": PanopticMapper,
    "coco_instance_lsj": InstanceMapper,
    "detr_panoptic": PanopticMapper,
}


def build_mapper(cfg: CfgNode, is_train: bool) -> Callable[[Record], Record]:
    """Build the mapper that ``INPUT.DATASET_MAPPER_NAME`` names.

    Raises:
        UserError: the name or another value of the config is not known.
    """
    name = cfg.INPUT.DATASET_MAPPER_NAME
    if name not in MAPPERS:
        raise UserError(
            f"INPUT.DATASET_MAPPER_NAME is {name!r}; expected one of {', '.join(MAPPERS)}"
        )
    return MAPPERS[name](cfg, is_train)


__all__ = [
    "MAPPERS",
    "DenoisingMapper",
    "InstanceMapper",
    "PanopticMapper",
    "SemanticMapper",
    "build_mapper",
]
