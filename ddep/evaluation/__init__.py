"""What is measured: denoising, classes, mean IoU, panoptic quality, AP of masks, boxes, tracks."""

from ddep.evaluation.cityscapes_instance import CityscapesAPEvaluator
from ddep.evaluation.classification import ClassificationEvaluator
from ddep.evaluation.denoising import DenoisingEvaluator
from ddep.evaluation.instance import BoxAPEvaluator, MaskAPEvaluator
from ddep.evaluation.measures import MEASURES, Measure
from ddep.evaluation.panoptic import PanopticQualityEvaluator
from ddep.evaluation.results_files import output_folder, write_results
from ddep.evaluation.results_table import ResultsTable
from ddep.evaluation.semantic import CheckedSemSegEvaluator
from ddep.evaluation.tracking import TrackingEvaluator
from ddep.evaluation.video import VideoAPEvaluator

__all__ = [
    "MEASURES",
    "BoxAPEvaluator",
    "CheckedSemSegEvaluator",
    "CityscapesAPEvaluator",
    "ClassificationEvaluator",
    "DenoisingEvaluator",
    "MaskAPEvaluator",
    "Measure",
    "PanopticQualityEvaluator",
    "ResultsTable",
    "TrackingEvaluator",
    "VideoAPEvaluator",
    "output_folder",
    "write_results",
]
