"""Turn foreign state dicts into backbones of this project, for the tests of conversion."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_backbone
from torch import nn

from ddep.checkpoint.conversion import Conversion, convert
from ddep.checkpoint.loading import load_weights
from ddep.config import add_ddep_config

State = dict[str, torch.Tensor]
FEATURES = ("res2", "res3", "res4", "res5")


@contextmanager
def uninitialised() -> Iterator[None]:
    """Build models without drawing random numbers, because their weights are replaced at once."""
    with ExitStack() as stack:
        for name in ("trunc_normal_", "kaiming_uniform_", "kaiming_normal_", "normal_"):
            stack.enter_context(patch(f"torch.nn.init.{name}", lambda tensor, *_, **__: tensor))
        yield


def randomise(module: nn.Module) -> nn.Module:
    """Let every parameter and every statistic matter, and keep activations near 1."""
    with torch.no_grad():
        for name, tensor in module.state_dict().items():
            if not tensor.is_floating_point():
                continue
            if name.endswith("running_var") or (tensor.ndim == 1 and name.endswith("weight")):
                tensor.uniform_(0.5, 1.5)
            elif tensor.ndim > 1 and "table" not in name:
                spread = (3 / tensor[0].numel()) ** 0.5
                tensor.uniform_(-spread, spread)
            else:
                tensor.uniform_(-0.5, 0.5)
    return module.eval()


def config_of(keys: dict[str, Any]) -> CfgNode:
    cfg = get_cfg()
    add_ddep_config(cfg)
    cfg.merge_from_list([item for pair in keys.items() for item in pair])
    return cfg


def backbone(state: State, settings: dict[str, Any] | None = None) -> tuple[nn.Module, Conversion]:
    """The backbone that a state dict describes, with its weights, all of which must fit."""
    conversion = convert(state, "auto", settings)
    with uninitialised():
        model = nn.ModuleDict({"backbone": build_backbone(config_of(conversion.config))}).eval()
    conversion.fit(model.state_dict())
    report = load_weights(model, dict(conversion.weights), "target.pth")
    assert not report.unused
    assert not report.mismatched
    assert report.new == conversion.missing
    return model["backbone"], conversion


def assert_features(found: State, expected: list[torch.Tensor], tolerance: float = 1e-4) -> None:
    """Compare res2 to res5 with maps of the same shapes."""
    assert list(found) == list(FEATURES)
    for name, reference in zip(FEATURES, expected, strict=True):
        assert reference.std() > 1e-2
        torch.testing.assert_close(found[name], reference, atol=tolerance, rtol=tolerance)
