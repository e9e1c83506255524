"""Detection: detectron2's own Faster R-CNN and Mask R-CNN."""

from __future__ import annotations

from typing import ClassVar

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog
from detectron2.modeling import (
    ANCHOR_GENERATOR_REGISTRY,
    PROPOSAL_GENERATOR_REGISTRY,
    ROI_HEADS_REGISTRY,
)
from torch import nn

from ddep.config import get_key
from ddep.errors import UserError
from ddep.evaluation.cityscapes_instance import is_cityscapes
from ddep.evaluation.measures import Measure
from ddep.tasks.registry import register_task
from ddep.tasks.task import Task, check_registered


@register_task
class DetectionTask(Task):
    """GeneralizedRCNN: Faster R-CNN (arXiv 1506.01497) and Mask R-CNN (arXiv 1703.06870).

    The losses are detectron2's own means over the images of a part of the batch.
    """

    name: ClassVar = "detection"
    meta_architectures: ClassVar = ("GeneralizedRCNN",)
    mappers: ClassVar = ("detection",)
    num_classes_key: ClassVar = "MODEL.ROI_HEADS.NUM_CLASSES"

    def adapt(self, cfg: CfgNode) -> list[str]:
        """As :meth:`Task.adapt`: without MODEL.WEIGHTS nothing of a ResNet is frozen, as in
        torchvision. With frozen random numbers training diverges."""
        backbone, resnet = cfg.MODEL.BACKBONE, cfg.MODEL.RESNETS
        if cfg.MODEL.WEIGHTS or "resnet" not in backbone.NAME:
            return []
        found = f"MODEL.BACKBONE.FREEZE_AT {backbone.FREEZE_AT}, MODEL.RESNETS.NORM {resnet.NORM}"
        norm = "BN" if resnet.NORM == "FrozenBN" else resnet.NORM
        if (0, norm) == (backbone.FREEZE_AT, resnet.NORM):
            return []
        backbone.FREEZE_AT, resnet.NORM = 0, norm
        return [
            f"MODEL.WEIGHTS is empty: using 0 and {norm} instead of {found}, which are for "
            "pretrained weights"
        ]

    def check(self, cfg: CfgNode) -> list[str]:
        """As :meth:`Task.check`."""
        self.check_parts(cfg)
        notes = super().check(cfg)
        for key in ("MODEL.KEYPOINT_ON", "MODEL.LOAD_PROPOSALS"):
            if get_key(cfg, key):
                raise UserError(
                    f"{key} is True, but INPUT.DATASET_MAPPER_NAME {self.mappers[0]} reads neither "
                    "keypoints nor proposals; set the key to False"
                )
        for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
            self._check_classes(cfg, name)
        return notes

    def check_parts(self, cfg: CfgNode) -> None:
        """Check what the model is made of.

        Raises:
            UserError: a part that does not exist.
        """
        for key, registry in (
            ("MODEL.PROPOSAL_GENERATOR.NAME", PROPOSAL_GENERATOR_REGISTRY),
            ("MODEL.ANCHOR_GENERATOR.NAME", ANCHOR_GENERATOR_REGISTRY),
            ("MODEL.ROI_HEADS.NAME", ROI_HEADS_REGISTRY),
        ):
            check_registered(cfg, key, registry)

    def check_averaging(self, cfg: CfgNode, key: str) -> None:
        """As :meth:`Task.check_averaging`: detectron2 merges boxes of scales and flips, but no
        windows."""
        if key != "TEST.AUG.ENABLED":
            super().check_averaging(cfg, key)

    def _check_classes(self, cfg: CfgNode, dataset_name: str) -> None:
        """Data sets that are not registered yet pass: the mapper looks at every annotation."""
        expected = len(MetadataCatalog.get(dataset_name).get("thing_classes") or ())
        found = self.num_classes(cfg)
        if expected and found != expected:
            raise UserError(
                f"{self.num_classes_key} is {found}; data set {dataset_name} has {expected} "
                "classes of things; set the key to that, or choose another data set"
            )

    def networks(self, model: nn.Module) -> list[nn.Module]:
        """As :meth:`Task.networks`. What comes after has as many boxes as there are."""
        return [model.backbone, model.proposal_generator.rpn_head]

    def measured(self, cfg: CfgNode) -> dict[str, str]:
        """As :meth:`Task.measured`: boxes, and masks if MODEL.MASK_ON."""
        return {name: key for name, key in self.measurable(cfg).items() if get_key(cfg, key)}

    def measurable(self, cfg: CfgNode) -> dict[str, str]:
        """As :meth:`Task.measurable`."""
        return {"bbox": "MODEL.META_ARCHITECTURE", "segm": "MODEL.MASK_ON"}

    def measures_on(self, cfg: CfgNode, dataset_name: str) -> list[Measure]:
        """As :meth:`Task.measures_on`; of Cityscapes, masks alone, as its owners do."""
        measures = super().measures_on(cfg, dataset_name)
        if not is_cityscapes(dataset_name):
            return measures
        masks = [measure for measure in measures if measure.name == "segm"]
        if not masks:
            raise UserError(
                f"nothing to evaluate on data set {dataset_name}: Cityscapes' evaluation is of "
                "masks, and MODEL.MASK_ON is False"
            )
        return masks
