"""Everything that can be measured, with the names of its results and metrics and its evaluator.

Data sets say with the same names what they are labelled for, and mappers what labels they need.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from detectron2.evaluation import DatasetEvaluator

from ddep.evaluation.cityscapes_instance import CityscapesAPEvaluator, is_cityscapes
from ddep.evaluation.classification import METRICS as CLASSIFICATION_METRICS
from ddep.evaluation.classification import ClassificationEvaluator, check_classes
from ddep.evaluation.denoising import METRICS as DENOISING_METRICS
from ddep.evaluation.instance import BoxAPEvaluator, MaskAPEvaluator
from ddep.evaluation.panoptic import PanopticQualityEvaluator, check_panoptic_records
from ddep.evaluation.semantic import CheckedSemSegEvaluator, check_metadata
from ddep.evaluation.tracking import TrackingEvaluator, check_tracking_records
from ddep.evaluation.tracking_metrics import METRICS as TRACKING_METRICS
from ddep.evaluation.video import VideoAPEvaluator
from ddep.evaluation.video_ap import METRICS as VIDEO_METRICS
from ddep.evaluation.video_tracks import check_video_records


def _no_check(dataset_name: str) -> None:
    pass


@dataclass(frozen=True)
class Measure:
    """A kind of result.

    Attributes:
        name: what evaluators call the results.
        title: what the log calls them.
        metrics: the most common first. There may be more, such as one for each class.
        evaluator: makes the evaluator from the name of a registered data set and a folder for
            files; None if that needs more.
        check: raises UserError if the named data set lacks what the evaluator needs; called before
            a run, because it may read whole annotation files.
    """

    name: str
    title: str
    metrics: tuple[str, ...]
    evaluator: Callable[[str, str], DatasetEvaluator] | None
    check: Callable[[str], None] = _no_check


_AP = ("AP", "AP50", "AP75", "APs", "APm", "APl")


def _mask_ap(dataset_name: str, folder: str) -> DatasetEvaluator:
    kind = CityscapesAPEvaluator if is_cityscapes(dataset_name) else MaskAPEvaluator
    return kind(dataset_name, folder)


MEASURES = {
    measure.name: measure
    for measure in (
        Measure("denoising", "denoising", DENOISING_METRICS, None),
        Measure(
            "panoptic_seg",
            "panoptic",
            tuple(f"{name}{kind}" for kind in ("", "_th", "_st") for name in ("PQ", "SQ", "RQ")),
            PanopticQualityEvaluator,
            check_panoptic_records,
        ),
        Measure(
            "sem_seg",
            "semantic",
            ("mIoU", "fwIoU", "mACC", "pACC"),
            CheckedSemSegEvaluator,
            check_metadata,
        ),
        Measure(
            "classification",
            "classification",
            CLASSIFICATION_METRICS,
            ClassificationEvaluator,
            check_classes,
        ),
        Measure("segm", "instance", _AP, _mask_ap),
        Measure("bbox", "boxes", _AP, BoxAPEvaluator),
        Measure(
            "video_segm",
            "video instances",
            VIDEO_METRICS,
            VideoAPEvaluator,
            check_video_records,
        ),
        Measure(
            "tracking", "tracking", TRACKING_METRICS, TrackingEvaluator, check_tracking_records
        ),
    )
}
