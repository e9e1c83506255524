"""Learning rates of what is transferred, what is new and of the encoder's layers."""

from __future__ import annotations

import pytest
import torch
from detectron2.config import CfgNode
from torch import nn

from ddep.engine import Trainer
from ddep.engine.optimizer import build_optimizer
from ddep.errors import UserError
from ddep.modeling.backbone import TimmBackbone
from tests.engine.test_optimizer import make_config, make_model, settings_of
from tests.engine.test_schedules import (
    FACTOR,
    MAX_ITER,
    WARMUP,
    cosine,
    poly,
    steps,
)
from tests.modeling.test_encoder_layers import timm_scales

# Everything but the queries, and one of the backbone's weights.
TRANSFERRED = [
    "backbone.attn.relative_position_bias_table",
    "backbone.attn.proj.weight",
    "backbone.attn.proj.bias",
    "decoder.conv.weight",
    "decoder.conv.bias",
    "decoder.norm.weight",
    "decoder.norm.bias",
    "decoder.level_embed",
]


def group_names(optimizer: torch.optim.Optimizer) -> list[str]:
    return [group["name"] for group in optimizer.param_groups]


def test_by_default_groups_do_not_depend_on_what_is_transferred() -> None:
    model = make_model()
    usual = build_optimizer(make_config(), model)
    found = build_optimizer(make_config(), model, TRANSFERRED)
    assert settings_of(model, found) == settings_of(model, usual)
    assert [[*map(id, g["params"])] for g in found.param_groups] == [
        [*map(id, g["params"])] for g in usual.param_groups
    ]
    assert group_names(found) == group_names(usual)


@pytest.mark.parametrize("settings", [{"TRANSFERRED_MULTIPLIER": 0.3}, {"NEW_ONLY_ITERS": 5}])
def test_transferred_parameters_outside_of_the_backbone_have_their_own_rate(
    settings: dict[str, float],
) -> None:
    model = make_model()
    optimizer = build_optimizer(make_config(**settings), model, TRANSFERRED)
    transferred = round(0.01 * settings.get("TRANSFERRED_MULTIPLIER", 1), 9)
    assert settings_of(model, optimizer) == {
        "backbone.attn.relative_position_bias_table": (0.001, 0.0),
        "backbone.attn.proj.weight": (0.001, 0.05),
        "backbone.attn.proj.bias": (0.001, 0.05),
        "backbone.norm.weight": (0.001, 0.001),
        "backbone.norm.bias": (0.001, 0.001),
        "decoder.conv.weight": (transferred, 0.05),
        "decoder.conv.bias": (transferred, 0.05),
        "decoder.norm.weight": (transferred, 0.001),
        "decoder.norm.bias": (transferred, 0.001),
        "decoder.level_embed": (transferred, 0.002),
        "query.weight": (0.01, 0.002),
    }
    assert group_names(optimizer) == [
        "head embedding",
        "transferred head weight",
        "transferred head norm",
        "transferred head embedding",
        "backbone norm",
        "transferred backbone weight",
        "transferred backbone position",
    ]


def test_the_backbones_rate_decays_from_layer_to_layer_as_timms() -> None:
    model = nn.ModuleDict({"backbone": TimmBackbone(name="resnet10t"), "head": nn.Linear(1, 1)})
    cfg = make_config(LAYER_DECAY=0.6, BACKBONE_MULTIPLIER=0.5)
    optimizer = build_optimizer(cfg, model)
    rates = {name: rate for name, (rate, _) in settings_of(model, optimizer).items()}
    assert rates.pop("head.weight") == rates.pop("head.bias") == 0.01
    scales = timm_scales("resnet10t", 0.6)
    assert len(rates) > 20
    for name, rate in rates.items():
        expected = 0.01 * 0.5 * scales[name.removeprefix("backbone.model.")]
        assert rate == pytest.approx(expected, abs=1e-9), name
    assert group_names(optimizer) == [
        "head weight",
        *(f"backbone layer {layer} {kind}" for layer in range(5) for kind in ("weight", "norm")),
    ]


def test_a_backbone_without_known_layers_has_no_layer_decay() -> None:
    with pytest.raises(UserError, match=r"SOLVER.LAYER_DECAY needs the layers .* but ModuleDict"):
        build_optimizer(make_config(LAYER_DECAY=0.9), make_model())


def with_schedule(cfg: CfgNode, name: str) -> CfgNode:
    solver = cfg.SOLVER
    solver.LR_SCHEDULER_NAME = name
    solver.MAX_ITER, solver.WARMUP_ITERS, solver.WARMUP_FACTOR = MAX_ITER, WARMUP, FACTOR
    solver.STEPS, solver.GAMMA = (20, 30), 0.5
    return cfg


@pytest.mark.parametrize(
    ("name", "formula"),
    [("WarmupPolyLR", poly), ("WarmupCosineLR", cosine), ("WarmupMultiStepLR", steps)],
)
def test_all_rates_follow_the_schedule(name: str, formula) -> None:
    cfg = make_config(TRANSFERRED_MULTIPLIER=0.3, NEW_ONLY_ITERS=5)
    optimizer = build_optimizer(with_schedule(cfg, name), make_model(), TRANSFERRED)
    schedule = Trainer.build_lr_scheduler(cfg, optimizer)
    base = [0.01, 0.003, 0.003, 0.003, 0.001, 0.001, 0.001]
    for t in range(MAX_ITER):
        expected = [rate * formula(t) for rate in base]
        assert [g["lr"] for g in optimizer.param_groups] == pytest.approx(expected, rel=1e-9)
        optimizer.step()
        schedule.step()
