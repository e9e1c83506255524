"""What a model's classes are called."""

from __future__ import annotations

from detectron2.config import CfgNode
from detectron2.data import MetadataCatalog

from ddep.tasks.registry import task_of


def class_names(cfg: CfgNode) -> list[str] | None:
    """Names of all classes, from the first data set with the right number of classes.

    Returns:
        None for a model without classes, and where no data set of the config is known.
    """
    number = task_of(cfg).num_classes(cfg)
    for name in (*cfg.DATASETS.TRAIN, *cfg.DATASETS.TEST):
        metadata = MetadataCatalog.get(name)
        for key in ("stuff_classes", "thing_classes"):
            names = metadata.get(key) or ()
            if number is not None and len(names) == number:
                return list(names)
    return None
