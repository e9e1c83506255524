from __future__ import annotations

import math
import re
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_model
from torch import Tensor, nn

from ddep.config import add_ddep_config
from ddep.engine.optimizer import build_optimizer, max_grad_norm
from ddep.errors import UserError
from tests.modeling.mask_former_config import SMALL

# Norms (also the group norms after the input projections) and embeddings of the real model.
_FREE = re.compile(
    r"norm|input_proj\.\d\.1\.|query_(feat|embed)|level_embed|relative_position_bias_table"
)


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.relative_position_bias_table = nn.Parameter(torch.ones(9, 1))
        self.proj = nn.Linear(2, 2)


def make_model() -> nn.ModuleDict:
    decoder = nn.ModuleDict({"conv": nn.Conv2d(2, 2, 1), "norm": nn.GroupNorm(1, 2)})
    decoder.register_parameter("level_embed", nn.Parameter(torch.ones(3, 2)))
    backbone = nn.ModuleDict({"attn": Attention(), "norm": nn.LayerNorm(2)})
    return nn.ModuleDict({"backbone": backbone, "decoder": decoder, "query": nn.Embedding(4, 2)})


def make_config(**solver: Any) -> CfgNode:
    cfg = get_cfg()
    add_ddep_config(cfg)
    settings = {
        "BASE_LR": 0.01,
        "BACKBONE_MULTIPLIER": 0.1,
        "WEIGHT_DECAY": 0.05,
        "WEIGHT_DECAY_NORM": 0.001,
        "WEIGHT_DECAY_EMBED": 0.002,
        **solver,
    }
    cfg.merge_from_list([item for k, v in settings.items() for item in (f"SOLVER.{k}", v)])
    return cfg


def settings_of(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, tuple]:
    names = {parameter: name for name, parameter in model.named_parameters()}
    return {
        names[parameter]: (round(group["lr"], 9), group["weight_decay"])
        for group in optimizer.param_groups
        for parameter in group["params"]
    }


@pytest.mark.parametrize("name", ["ADAMW", "SGD"])
def test_rate_and_decay_of_every_parameter(name: str) -> None:
    model = make_model()
    optimizer = build_optimizer(make_config(OPTIMIZER=name), model)
    assert settings_of(model, optimizer) == {
        "backbone.attn.relative_position_bias_table": (0.001, 0.0),
        "backbone.attn.proj.weight": (0.001, 0.05),
        "backbone.attn.proj.bias": (0.001, 0.05),
        "backbone.norm.weight": (0.001, 0.001),
        "backbone.norm.bias": (0.001, 0.001),
        "decoder.conv.weight": (0.01, 0.05),
        "decoder.conv.bias": (0.01, 0.05),
        "decoder.norm.weight": (0.01, 0.001),
        "decoder.norm.bias": (0.01, 0.001),
        "decoder.level_embed": (0.01, 0.002),
        "query.weight": (0.01, 0.002),
    }
    assert type(optimizer) is {"ADAMW": torch.optim.AdamW, "SGD": torch.optim.SGD}[name]
    assert [group["name"] for group in optimizer.param_groups] == [
        "head weight",
        "head norm",
        "head embedding",
        "backbone weight",
        "backbone norm",
        "backbone position",
    ]


def test_the_real_model_has_no_decay_on_norms_and_embeddings() -> None:
    cfg = make_config(WEIGHT_DECAY_NORM=0.0, WEIGHT_DECAY_EMBED=0.0)
    swin = {"EMBED_DIM": 8, "DEPTHS": [1] * 4, "NUM_HEADS": [1] * 4, "WINDOW_SIZE": 2}
    settings = {
        **SMALL,
        **{f"MODEL.SWIN.{key}": value for key, value in swin.items()},
        "MODEL.BACKBONE.NAME": "D2SwinTransformer",
        "MODEL.META_ARCHITECTURE": "MaskFormer",
        "MODEL.DEVICE": "cpu",
    }
    cfg.merge_from_list([item for pair in settings.items() for item in pair])
    model = build_model(cfg)
    found = settings_of(model, build_optimizer(cfg, model))
    assert found.keys() == {name for name, p in model.named_parameters() if p.requires_grad}
    for name, (_, decay) in found.items():
        assert (decay == 0) == bool(_FREE.search(name)), name
    assert {rate for name, (rate, _) in found.items() if name.startswith("backbone.")} == {0.001}
    assert {rate for name, (rate, _) in found.items() if name.startswith("sem_seg")} == {0.01}


def test_an_fpn_learns_at_the_decoders_rate() -> None:
    backbone = nn.ModuleDict({name: nn.Conv2d(1, 1, 1) for name in ("bottom_up", "fpn_output2")})
    model = nn.ModuleDict({"backbone": backbone, "roi_heads": nn.Linear(1, 1)})
    settings = settings_of(model, build_optimizer(make_config(), model))
    assert {name.removesuffix(".weight"): rate for name, (rate, _) in settings.items()} == {
        "backbone.bottom_up": 0.001,
        "backbone.bottom_up.bias": 0.001,
        "backbone.fpn_output2": 0.01,
        "backbone.fpn_output2.bias": 0.01,
        "roi_heads": 0.01,
        "roi_heads.bias": 0.01,
    }


def test_frozen_parameters_are_absent_and_shared_ones_there_once() -> None:
    model = make_model()
    model["backbone"].requires_grad_(False)
    model["tied"] = model["decoder"]["conv"]
    optimizer = build_optimizer(make_config(), model)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    assert len(parameters) == len(set(parameters)) == 6
    assert not any(name.startswith("backbone") for name in settings_of(model, optimizer))


def test_the_state_fits_a_run_with_other_multipliers() -> None:
    """Places in the optimizer's state do not depend on which values happen to be equal."""
    model = make_model()
    first = build_optimizer(make_config(), model)
    sum(p.sum() for p in model.parameters()).backward()
    first.step()
    settings = {"BACKBONE_MULTIPLIER": 1.0, "WEIGHT_DECAY_NORM": 0.05, "WEIGHT_DECAY_EMBED": 0.0}
    second = build_optimizer(make_config(**settings), model)
    second.load_state_dict(first.state_dict())
    for parameter in model.parameters():
        assert second.state[parameter]["exp_avg"].shape == parameter.shape
        assert second.state[parameter]["exp_avg"].abs().sum() > 0


def updated(name: str, weight: Tensor, gradients: list[Tensor], decay: float) -> Tensor:
    """``weight`` after a step with each gradient, in float64.

    AdamW: Loshchilov and Hutter (2019), algorithm 2, with betas 0.9 and 0.999. SGD: momentum 0.9,
    with the decay in the gradient.
    """
    rate, weight = 0.01, weight.double()
    mean, square = torch.zeros_like(weight), torch.zeros_like(weight)
    for number, gradient in enumerate(gradients, start=1):
        gradient = gradient.double()
        if name == "SGD":
            mean = 0.9 * mean + gradient + decay * weight
            weight = weight - rate * mean
            continue
        mean = 0.9 * mean + 0.1 * gradient
        square = 0.999 * square + 0.001 * gradient**2
        step = (mean / (1 - 0.9**number)) / ((square / (1 - 0.999**number)).sqrt() + 1e-8)
        weight = weight - rate * (step + decay * weight)
    return weight


DEVICES = pytest.mark.parametrize(
    "device",
    [
        "cpu",
        pytest.param(
            "cuda", marks=pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")
        ),
    ],
)


@DEVICES
@pytest.mark.parametrize("name", ["ADAMW", "SGD"])
def test_weights_after_a_state_of_other_loops_on_a_cpu_is_loaded(name: str, device: str) -> None:
    """The state may be of an earlier version, and of a run on another device."""
    torch.manual_seed(0)
    model = nn.ModuleDict({"linear": nn.Linear(37, 11), "norm": nn.LayerNorm(11)})
    starts = [p.detach().clone() for p in model.parameters()]
    gradients = [[torch.randn_like(p) for p in starts] for _ in range(6)]
    cfg = make_config(OPTIMIZER=name, MOMENTUM=0.9)

    def run(optimizer: torch.optim.Optimizer, steps: list[list[Tensor]]) -> None:
        for step in steps:
            for parameter, gradient in zip(model.parameters(), step, strict=True):
                # A copy, because model.to moves gradients in place.
                parameter.grad = gradient.to(parameter.device, copy=True)
            optimizer.step()

    first = build_optimizer(cfg, model)
    for group in first.param_groups:
        group["fused"] = None
    run(first, gradients[:3])
    state = first.state_dict()
    model.to(device)
    second = build_optimizer(cfg, model)
    second.load_state_dict(state)
    assert all(group["fused"] for group in second.param_groups)
    assert not any(group["fused"] for group in state["param_groups"])
    run(second, gradients[3:])
    for i, (parameter, start) in enumerate(zip(model.parameters(), starts, strict=True)):
        decay = 0.001 if i >= 2 else 0.05
        expected = updated(name, start, [step[i] for step in gradients], decay)
        torch.testing.assert_close(parameter.detach().cpu().double(), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("enabled", "kind", "expected"),
    [
        (True, "full_model", 0.5),
        (False, "full_model", math.inf),
        (True, "norm", math.inf),
        (True, "value", math.inf),
    ],
)
def test_gradients_of_the_whole_model_have_a_largest_norm(
    enabled: bool, kind: str, expected: float
) -> None:
    cfg = make_config()
    cfg.SOLVER.CLIP_GRADIENTS.merge_from_other_cfg(
        CfgNode({"ENABLED": enabled, "CLIP_TYPE": kind, "CLIP_VALUE": 0.5})
    )
    assert max_grad_norm(cfg) == expected
    optimizer = build_optimizer(cfg, make_model())
    # detectron2's clipping makes a class of its own.
    assert (type(optimizer) is torch.optim.AdamW) == (kind == "full_model")


@pytest.mark.parametrize("kind", ["value", "norm"])
def test_detectron2s_clipping_of_single_parameters_works(kind: str) -> None:
    model = nn.ModuleDict({"a": nn.Linear(2, 1, bias=False), "b": nn.Linear(2, 1, bias=False)})
    cfg = make_config(OPTIMIZER="SGD", MOMENTUM=0.0, BASE_LR=1.0, WEIGHT_DECAY=0.0)
    cfg.SOLVER.CLIP_GRADIENTS.merge_from_other_cfg(
        CfgNode({"ENABLED": True, "CLIP_TYPE": kind, "CLIP_VALUE": 1.0})
    )
    optimizer = build_optimizer(cfg, model)
    before = [p.detach().clone() for p in model.parameters()]
    for parameter in model.parameters():
        parameter.grad = torch.tensor([[3.0, 4.0]])
    optimizer.step()
    step = torch.tensor([[1.0, 1.0]] if kind == "value" else [[0.6, 0.8]])
    for parameter, old in zip(model.parameters(), before, strict=True):
        torch.testing.assert_close(parameter.detach(), old - step, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("OPTIMIZER", "ADAM", "SOLVER.OPTIMIZER is 'ADAM'; expected ADAMW or SGD"),
        ("CLIP_GRADIENTS.CLIP_TYPE", "all", "CLIP_TYPE is 'all'; expected full_model, value or"),
    ],
)
def test_unknown_values_are_named(key: str, value: str, message: str) -> None:
    with pytest.raises(UserError, match=message):
        build_optimizer(make_config(**{key: value}), make_model())


def test_a_model_with_nothing_to_train_is_an_error() -> None:
    with pytest.raises(UserError, match="no parameter"):
        build_optimizer(make_config(), make_model().requires_grad_(False))
