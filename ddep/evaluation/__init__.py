"""What is measured: denoising, mean IoU, panoptic quality and mask AP."""

from ddep.evaluation.build import (
    build_evaluator,
    check_evaluation,
    compare_classes,
    output_folder,
)
from ddep.evaluation.cityscapes_instance import CityscapesAPEvaluator
from ddep.evaluation.denoising import DenoisingEvaluator
from ddep.evaluation.instance import MaskAPEvaluator
from ddep.evaluation.panoptic import PanopticQualityEvaluator
from ddep.evaluation.results_files import write_results
from ddep.evaluation.results_table import ResultsTable
from ddep.evaluation.semantic import CheckedSemSegEvaluator

__all__ = [
    "CheckedSemSegEvaluator",
    "CityscapesAPEvaluator",
    "DenoisingEvaluator",
    "MaskAPEvaluator",
    "PanopticQualityEvaluator",
    "ResultsTable",
    "build_evaluator",
    "check_evaluation",
    "compare_classes",
    "output_folder",
    "write_results",
]
