"""Mappers: turn a data set's records into a model's input."""

from __future__ import annotations

from detectron2.config import CfgNode

from ddep.data.mapper_registry import (
    MAPPERS,
    TARGET_MAPPERS,
    Mapper,
    TargetMapper,
    mapper_class,
    register_mapper,
    register_target_mapper,
)
from ddep.data.mappers.classification import ClassificationMapper
from ddep.data.mappers.denoising import DenoisingMapper
from ddep.data.mappers.detection import DetectionMapper, DetrDetectionMapper
from ddep.data.mappers.instance import InstanceMapper
from ddep.data.mappers.panoptic import PanopticMapper
from ddep.data.mappers.semantic import SemanticMapper
from ddep.data.mappers.target import StrongTargetMapper, WeakTargetMapper
from ddep.data.mappers.target_crops import TargetCropsMapper
from ddep.data.mappers.target_pseudo_labels import PseudoLabelTargetMapper
from ddep.data.mappers.video_instance import VideoInstanceMapper


def build_mapper(cfg: CfgNode, is_train: bool) -> Mapper:
    """Build the mapper that ``INPUT.DATASET_MAPPER_NAME`` names.

    Raises:
        UserError: an unknown name, or another impossible value in the config.
    """
    return mapper_class(cfg.INPUT.DATASET_MAPPER_NAME)(cfg, is_train)


def build_target_mapper(cfg: CfgNode, name: str) -> TargetMapper:
    """Build the mapper of ``DATASETS.TARGET`` that an adaptation method asks for by ``name``.

    Raises:
        UserError: an impossible value in the config.
    """
    return TARGET_MAPPERS[name](cfg)


__all__ = [
    "MAPPERS",
    "TARGET_MAPPERS",
    "ClassificationMapper",
    "DenoisingMapper",
    "DetectionMapper",
    "DetrDetectionMapper",
    "InstanceMapper",
    "Mapper",
    "PanopticMapper",
    "PseudoLabelTargetMapper",
    "SemanticMapper",
    "StrongTargetMapper",
    "TargetCropsMapper",
    "TargetMapper",
    "VideoInstanceMapper",
    "WeakTargetMapper",
    "build_mapper",
    "build_target_mapper",
    "mapper_class",
    "register_mapper",
    "register_target_mapper",
]
