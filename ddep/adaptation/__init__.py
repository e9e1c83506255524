"""Fine-tuning with unlabelled images of the place where a model will run: one method a file.

A method adds losses on target images to those of a semantic model on labelled ones. Models,
checkpoints, evaluation and prediction are the same with and without.
"""

from ddep.adaptation.adapted_model import AdaptedModel
from ddep.adaptation.adversarial import AdversarialAdaptation
from ddep.adaptation.check import check_adaptation
from ddep.adaptation.consistency import Consistency
from ddep.adaptation.distillation import Distillation
from ddep.adaptation.entropy import EntropyMinimisation
from ddep.adaptation.mean_teacher import MeanTeacher
from ddep.adaptation.method import AdaptationBatch, Method
from ddep.adaptation.prototypes import Prototypes
from ddep.adaptation.registry import METHODS, adapts, method_of, register_method
from ddep.adaptation.sac import SelfSupervisedConsistency

__all__ = [
    "METHODS",
    "AdaptationBatch",
    "AdaptedModel",
    "AdversarialAdaptation",
    "Consistency",
    "EntropyMinimisation",
    "MeanTeacher",
    "Method",
    "SelfSupervisedConsistency",
    "Distillation",
    "Prototypes",
    "adapts",
    "check_adaptation",
    "method_of",
    "register_method",
]
