"""The model and its discriminators have an optimizer each."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.config import CfgNode

from ddep.adaptation import AdaptedModel
from ddep.engine.adaptation import build_adapted_model, method_optimizers
from ddep.engine.optimizer import build_optimizer
from tests.modeling.meta_arch.batches import config_of, model_and_batch

KIND: dict[str, Any] = {"pretrain": False, "HEAD": "PerPixelBaselinePlusHead"}


def adapted_model(method: str) -> tuple[CfgNode, AdaptedModel]:
    cfg = config_of(KIND)
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.ADAPTATION.METHOD = method
    cfg.MODEL.ADAPTATION.ADVERSARIAL.WEIGHTS = [0.1, 0.1]
    model, _ = model_and_batch(KIND)
    return cfg, build_adapted_model(cfg, model, None)


def parameters(optimizer: torch.optim.Optimizer) -> list[torch.nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def test_every_parameter_is_in_one_optimizer() -> None:
    cfg, adapted = adapted_model("adversarial")
    main = build_optimizer(cfg, adapted.model)
    (other,) = method_optimizers(cfg, adapted)
    found = [*parameters(main), *parameters(other)]
    assert len(found) == len(set(found))
    assert set(found) == {p for p in adapted.parameters() if p.requires_grad}
    assert set(parameters(other)) == set(adapted.method.parameters())
    assert len(parameters(other)) == 2 * 10
    group = other.param_groups[0]
    assert (group["lr"], tuple(group["betas"]), group["fused"]) == (1e-4, (0.9, 0.99), True)


def test_a_method_without_parameters_has_no_optimizer() -> None:
    cfg, adapted = adapted_model("entropy")
    assert method_optimizers(cfg, adapted) == []
    assert method_optimizers(cfg, None) == []


@pytest.mark.parametrize("clip", ["value", "full_model"])
def test_gradients_of_discriminators_are_clipped_as_the_models(clip: str) -> None:
    cfg, adapted = adapted_model("adversarial")
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = clip
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 0.5
    (other,) = method_optimizers(cfg, adapted)
    for parameter in adapted.method.parameters():
        parameter.grad = torch.full_like(parameter, 2.0)
    other.step()
    # TrainStep limits the norm of "full_model".
    expected = 0.5 if clip == "value" else 2.0
    assert all((p.grad == expected).all() for p in adapted.method.parameters())
