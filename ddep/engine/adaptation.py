"""Build what MODEL.ADAPTATION adds to training."""

from __future__ import annotations

import torch
from detectron2.config import CfgNode
from torch import nn

from ddep.adaptation import AdaptedModel, method_of
from ddep.adaptation.teacher import Teacher
from ddep.engine.ema import WeightAverage
from ddep.engine.optimizer import finish_optimizer
from ddep.tasks import task_of


def build_adapted_model(
    cfg: CfgNode, model: nn.Module, average: WeightAverage | None
) -> AdaptedModel:
    """Put ``model`` into what computes its losses and those of target images.

    Args:
        cfg: with a MODEL.ADAPTATION.METHOD.
        model: a semantic model, on its device.
        average: of its weights, the teacher; None if the method needs none.

    Raises:
        UserError: an impossible value in MODEL.ADAPTATION, or one that the model cannot do.
    """
    task = task_of(cfg)
    classifier = task.pixel_classifier(cfg, model)
    method = method_of(cfg)(cfg, classifier.num_classes).to(cfg.MODEL.DEVICE)
    method.check_model(classifier)
    teacher = Teacher(classifier, average.in_place) if average is not None else None
    return AdaptedModel(classifier, method, teacher, task.normalisers(model))


def method_optimizers(cfg: CfgNode, adapted: AdaptedModel | None) -> list[torch.optim.Optimizer]:
    """The optimizer of the method's own parameters, if there are a method and parameters."""
    optimizer = adapted.method.optimizer() if adapted else None
    return [finish_optimizer(cfg, optimizer)] if optimizer else []
