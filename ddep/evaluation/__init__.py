"""What is measured: denoising, mean IoU, panoptic quality and mask AP."""

from ddep.evaluation.build import build_evaluator, check_evaluation
from ddep.evaluation.cityscapes_instance import CityscapesAPEvaluator
from ddep.evaluation.denoising import DenoisingEvaluator
from ddep.evaluation.instance import MaskAPEvaluator
from ddep.evaluation.panoptic import PanopticQualityEvaluator
from ddep.evaluation.semantic import CheckedSemSegEvaluator

__all__ = [
    "CheckedSemSegEvaluator",
    "CityscapesAPEvaluator",
    "DenoisingEvaluator",
    "MaskAPEvaluator",
    "PanopticQualityEvaluator",
    "build_evaluator",
    "check_evaluation",
]
