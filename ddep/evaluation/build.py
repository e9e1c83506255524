"""Which evaluators a data set and a model call for."""

from __future__ import annotations

import logging
import os
import re
from collections.abc import Sequence

from detectron2.config import CfgNode
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.evaluation import DatasetEvaluator, DatasetEvaluators

from ddep.errors import UserError, one_line
from ddep.evaluation.cityscapes_instance import CityscapesAPEvaluator
from ddep.evaluation.denoising import DenoisingEvaluator
from ddep.evaluation.instance import MaskAPEvaluator
from ddep.evaluation.panoptic import PanopticQualityEvaluator
from ddep.evaluation.semantic import CheckedSemSegEvaluator, check_metadata

logger = logging.getLogger(__name__)

# The evaluator of each task, Cityscapes' instances aside. MODEL.MASK_FORMER.TEST.<task>_ON switches
# the task on.
_EVALUATORS = {
    "PANOPTIC": PanopticQualityEvaluator,
    "SEMANTIC": CheckedSemSegEvaluator,
    "INSTANCE": MaskAPEvaluator,
}
_PANOPTIC = tuple(_EVALUATORS)
# The tasks that data sets of each evaluator_type are labelled for. Cityscapes' own evaluators need
# its package, and a GPU for mean IoU; the label images that detectron2 registers
# (*_labelTrainIds.png) hold the same labels, and the mean IoU is the same.
_TASKS = {
    "sem_seg": ("SEMANTIC",),
    "cityscapes_sem_seg": ("SEMANTIC",),
    "cityscapes_instance": ("INSTANCE",),
    "coco": ("INSTANCE",),
    "panoptic_seg": _PANOPTIC,
    "coco_panoptic_seg": _PANOPTIC,
    "ade20k_panoptic_seg": _PANOPTIC,
    "cityscapes_panoptic_seg": _PANOPTIC,
    "mapillary_vistas_panoptic_seg": _PANOPTIC,
}


def output_folder(cfg: CfgNode, dataset_name: str) -> str:
    """Where the results on a data set go: ``inference`` in ``OUTPUT_DIR``, with a folder for each
    data set if there are several."""
    folder = os.path.join(cfg.OUTPUT_DIR, "inference")
    if len(cfg.DATASETS.TEST) > 1:
        folder = os.path.join(folder, re.sub(r"[^\w.-]+", "_", dataset_name))
    return folder


def build_evaluator(cfg: CfgNode, dataset_name: str, folder: str | None = None) -> DatasetEvaluator:
    """Make the evaluator of a data set.

    Denoising models get :class:`DenoisingEvaluator`. For others the data set's ``evaluator_type``
    says what can be evaluated, and ``MODEL.MASK_FORMER.TEST.{SEMANTIC,INSTANCE,PANOPTIC}_ON`` what
    the model predicts; both together select mean IoU, mask AP and panoptic quality. On a panoptic
    data set mean IoU and mask AP also need their own ground truth, and are left out without it.

    Args:
        cfg: the whole config.
        dataset_name: a registered data set.
        folder: where results go, by default :func:`output_folder`.

    Raises:
        UserError: see :func:`check_evaluation`.
    """
    if folder is None:
        folder = output_folder(cfg, dataset_name)
    if cfg.MODEL.META_ARCHITECTURE == "DenoisingPretrainer":
        return DenoisingEvaluator(
            dataset_name,
            formulation=cfg.MODEL.DDEP.NOISE,
            pixel_mean=cfg.MODEL.PIXEL_MEAN,
            pixel_std=cfg.MODEL.PIXEL_STD,
            image_format=cfg.INPUT.FORMAT,
            output_dir=folder,
        )
    tasks = check_evaluation(cfg, dataset_name)
    logger.info("Evaluation on %s: %s", dataset_name, ", ".join(tasks).lower())
    evaluators = [_evaluator(task, dataset_name)(dataset_name, folder) for task in tasks]
    return evaluators[0] if len(evaluators) == 1 else DatasetEvaluators(evaluators)


def _evaluator(task: str, dataset_name: str) -> type[DatasetEvaluator]:
    if task == "INSTANCE" and _is_cityscapes(dataset_name):
        return CityscapesAPEvaluator
    return _EVALUATORS[task]


def _is_cityscapes(dataset_name: str) -> bool:
    return MetadataCatalog.get(dataset_name).evaluator_type.startswith("cityscapes_")


def check_evaluation(cfg: CfgNode, dataset_name: str) -> list[str]:
    """Check that a model can be evaluated on a data set, as far as that can be seen beforehand.

    Args:
        cfg: the whole config.
        dataset_name: a registered data set.

    Returns:
        What is evaluated: any of PANOPTIC, SEMANTIC and INSTANCE. Nothing for denoising, which
        needs no labels.

    Raises:
        UserError: nothing can be evaluated, or the data set lacks what its evaluation needs.
    """
    if cfg.MODEL.META_ARCHITECTURE == "DenoisingPretrainer":
        return []
    evaluator_type = MetadataCatalog.get(dataset_name).get("evaluator_type")
    if evaluator_type not in _TASKS:
        raise UserError(
            f"data set {dataset_name} has the evaluator_type {evaluator_type!r}, for which there "
            f"is no evaluator; expected one of {', '.join(_TASKS)}"
        )
    possible = _TASKS[evaluator_type]
    if possible == _PANOPTIC:
        possible = [task for task in possible if _has_ground_truth(task, dataset_name)]
    tasks = [task for task in possible if cfg.MODEL.MASK_FORMER.TEST[f"{task}_ON"]]
    if not tasks:
        keys = " or ".join(f"MODEL.MASK_FORMER.TEST.{task}_ON" for task in possible)
        raise UserError(
            f"nothing to evaluate on data set {dataset_name} (evaluator_type {evaluator_type}): "
            f"{keys} must be True"
        )
    if "SEMANTIC" in tasks:
        check_metadata(dataset_name)
    return tasks


def compare_classes(cfg: CfgNode, dataset_name: str, tasks: Sequence[str]) -> list[str]:
    """Compare the classes of a data set to evaluate on with the model's.

    Args:
        cfg: the whole config; the classes of the first training set are taken for the model's.
        dataset_name: a registered data set.
        tasks: what is evaluated on it, by :func:`check_evaluation`.

    Returns:
        A line for what may be a mistake: fewer classes, or classes of other names.

    Raises:
        UserError: mean IoU of a model that has more classes than the data set.
    """
    if "SEMANTIC" not in tasks:
        return []
    number = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    theirs = MetadataCatalog.get(dataset_name).stuff_classes
    if number > len(theirs):
        raise UserError(
            f"DATASETS.TEST has {dataset_name}, which has {len(theirs)} classes, but "
            f"MODEL.SEM_SEG_HEAD.NUM_CLASSES is {number}; evaluate on data sets of the model's "
            "classes"
        )
    if number < len(theirs):
        return [
            f"{dataset_name} has {len(theirs)} classes, but MODEL.SEM_SEG_HEAD.NUM_CLASSES is "
            f"{number}: those from {theirs[number]} on are never predicted"
        ]
    for name in cfg.DATASETS.TRAIN[:1]:
        ours = MetadataCatalog.get(name).get("stuff_classes", theirs)
        for index, (own, other) in enumerate(zip(ours, theirs, strict=False)):
            if own != other:
                return [
                    f"class {index} is {own} in {name} and {other} in {dataset_name}: unless these "
                    "are names of the same, the results on it mean nothing"
                ]
    return []


def _has_ground_truth(task: str, dataset_name: str) -> bool:
    """Whether a panoptic data set can be used for ``task``."""
    if task == "SEMANTIC":
        try:
            records = DatasetCatalog.get(dataset_name)
        except (AssertionError, KeyError, OSError, TypeError, ValueError) as error:
            raise UserError(
                f"DATASETS.TEST: data set {dataset_name} cannot be read: {one_line(error)}"
            ) from error
        return any("sem_seg_file_name" in record for record in records[:1])
    if task == "INSTANCE":
        attribute = "gt_dir" if _is_cityscapes(dataset_name) else "json_file"
        return MetadataCatalog.get(dataset_name).get(attribute) is not None
    return True
