"""Image classification: one class or several for each image."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from typing import Any, ClassVar

import numpy as np
from detectron2.config import CfgNode
from detectron2.data import Metadata, MetadataCatalog
from torch import nn

from ddep.data.datasets.class_folders import find_class_names
from ddep.data.image_reader import read_image
from ddep.drawing.classes import draw_probabilities
from ddep.errors import UserError
from ddep.evaluation.classification import check_classes
from ddep.evaluation.measures import Measure
from ddep.tasks.registry import register_task
from ddep.tasks.task import Task

logger = logging.getLogger(__name__)


@register_task
class ClassificationTask(Task):
    """A classifier, which pretrains the encoder of the other models."""

    name: ClassVar = "classification"
    meta_architectures: ClassVar = ("ImageClassifier",)
    mappers: ClassVar = ("classification",)
    num_classes_key: ClassVar = "MODEL.CLASSIFIER.NUM_CLASSES"

    def normalisers(self, model: nn.Module) -> Callable[[list[dict[str, Any]]], dict[str, float]]:
        """As :meth:`Task.normalisers`."""
        return model.normalisers

    def measured(self, cfg: CfgNode) -> dict[str, str]:
        """As :meth:`Task.measured`."""
        return {"classification": "MODEL.META_ARCHITECTURE"}

    def measures_on(self, cfg: CfgNode, dataset_name: str) -> list[Measure]:
        """As :meth:`Task.measures_on`; the data set must have the model's classes.

        Raises:
            UserError: it has other classes, or in another order.
        """
        measures = super().measures_on(cfg, dataset_name)
        check_classes(dataset_name)
        names = MetadataCatalog.get(dataset_name).classes
        if len(names) != self.num_classes(cfg):
            raise UserError(
                f"{self.num_classes_key} is {self.num_classes(cfg)}, but data set {dataset_name} "
                f"has {len(names)} classes; evaluate on data sets of the model's classes"
            )
        for trained_on in cfg.DATASETS.TRAIN[:1]:
            ours = MetadataCatalog.get(trained_on).get("classes", names)
            for number, (own, other) in enumerate(zip(ours, names, strict=False)):
                if own != other:
                    raise UserError(
                        f"class {number} is {own} in {trained_on} and {other} in {dataset_name}; "
                        "evaluate on data sets of the model's classes, in the same order"
                    )
        return measures

    def class_metadata(self, cfg: CfgNode) -> Metadata:
        """As :meth:`Task.class_metadata`; without a known data set, classes have no names."""
        for name in (*cfg.DATASETS.TEST, *cfg.DATASETS.TRAIN):
            classes = find_class_names(name)
            if classes:
                return Metadata(name=name, classes=classes)
        logger.warning(
            "no data set of DATASETS.TEST and DATASETS.TRAIN says what the classes are called: "
            "pictures have their numbers"
        )
        return Metadata()

    def draw(
        self,
        cfg: CfgNode,
        inputs: Mapping[str, Any],
        outputs: Mapping[str, Any],
        metadata: Metadata | None,
    ) -> np.ndarray:
        """The image, and its most probable classes; right ones in green if the truth is known."""
        true = inputs["classes"].tolist() if "classes" in inputs else None
        names = metadata.get("classes", ()) if metadata else ()
        image = read_image(inputs["file_name"], "RGB")
        return draw_probabilities(image, outputs["classes"], names, true)
