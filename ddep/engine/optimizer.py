"""The optimizer: learning rate and weight decay of every parameter, and gradient clipping."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.solver.build import maybe_add_gradient_clipping
from torch import nn

from ddep.engine.learning_rates import LearningRates, Part
from ddep.errors import UserError

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.SyncBatchNorm, nn.GroupNorm, nn.LayerNorm)
# Embeddings that are added to features or attention: of positions, which Swin's own training does
# not decay, and of the pixel decoder's levels.
_POSITIONS = ("relative_position_bias_table", "absolute_pos_embed", "pos_embed")
_LEVELS = ("level_embed",)
# Rein's, which the authors' own training does not decay either.
_TOKENS = ("tokens_a", "tokens_b", "delta_scale")

# Parameter groups come in this order inside each part of the model, whatever the config's values:
# an optimizer's checkpoint knows groups by their position.
_KINDS = ("weight", "norm", "embedding", "position")


def build_optimizer(
    cfg: CfgNode, model: nn.Module, transferred: Collection[str] = ()
) -> torch.optim.Optimizer:
    """AdamW or SGD over the parameters of ``model`` that are to be trained.

    Learning rates are those of :class:`ddep.engine.learning_rates.LearningRates`. Weight decay is
    ``WEIGHT_DECAY_NORM`` for norms, ``WEIGHT_DECAY_EMBED`` for embeddings (the queries, and the
    pixel decoder's ``level_embed``, which Mask2Former decays like a weight, and Rein's tokens), 0
    for position embeddings and ``WEIGHT_DECAY`` for everything else, biases included. A parameter
    that several modules share appears once, a frozen one not at all.

    It is finished by :func:`finish_optimizer`.

    Args:
        cfg: reads SOLVER.
        model: its class may say by ``weight_groups`` which names are the encoder's.
        transferred: names of the weights that were taken from MODEL.WEIGHTS.

    Returns:
        An optimizer with few parameter groups, each with a ``name``: a part of the model and a kind
        of parameter. The first is of new parameters outside of the encoder, if there are any: it
        has BASE_LR, which the log shows.

    Raises:
        UserError: an unknown SOLVER.OPTIMIZER, nothing to train, or a LAYER_DECAY for an encoder
            whose layers are not known.
    """
    solver = cfg.SOLVER
    rates = LearningRates(cfg, model, transferred)
    decays = {
        "weight": solver.WEIGHT_DECAY,
        "norm": solver.WEIGHT_DECAY_NORM,
        "embedding": solver.WEIGHT_DECAY_EMBED,
        "position": 0.0,
    }
    members: dict[tuple[Part, str], list[nn.Parameter]] = {}
    for name, kind, parameter in _classify(model):
        members.setdefault((rates.part(name), kind), []).append(parameter)
    groups: list[dict[str, Any]] = [
        {
            "name": f"{part.name} {kind}",
            "params": members[part, kind],
            "lr": rates.of(part),
            "weight_decay": decays[kind],
        }
        for part, kind in sorted(members, key=lambda key: (key[0], _KINDS.index(key[1])))
    ]
    if not groups:
        raise UserError("no parameter of the model is to be trained")
    if solver.OPTIMIZER == "ADAMW":
        optimizer = torch.optim.AdamW(groups, lr=solver.BASE_LR, fused=True)
    elif solver.OPTIMIZER == "SGD":
        optimizer = torch.optim.SGD(
            groups,
            lr=solver.BASE_LR,
            momentum=solver.MOMENTUM,
            nesterov=solver.NESTEROV,
            fused=True,
        )
    else:
        raise UserError(f"SOLVER.OPTIMIZER is {solver.OPTIMIZER!r}; expected ADAMW or SGD")
    return finish_optimizer(cfg, optimizer)


def finish_optimizer(cfg: CfgNode, optimizer: torch.optim.Optimizer) -> torch.optim.Optimizer:
    """Add what every optimizer of a run has.

    All parameters of a group are updated in one pass over their memory (``fused``), also after a
    state is loaded that an optimizer with other loops saved.

    With CLIP_GRADIENTS.CLIP_TYPE "value" and "norm" the gradients of each parameter are clipped
    before each step, as detectron2 does; see :func:`max_grad_norm` for "full_model".

    Args:
        cfg: reads SOLVER.CLIP_GRADIENTS.
        optimizer: built with ``fused=True``; it is changed.
    """
    optimizer.register_load_state_dict_pre_hook(_stay_fused)
    if math.isfinite(max_grad_norm(cfg)):
        return optimizer
    return maybe_add_gradient_clipping(cfg, optimizer)


def _stay_fused(_: torch.optim.Optimizer, state: dict[str, Any]) -> dict[str, Any]:
    """``state`` as if a fused optimizer had saved it.

    Before loading, because a fused optimizer counts its steps on the parameters' device.
    """
    groups = [{**group, "fused": True, "foreach": None} for group in state["param_groups"]]
    return {**state, "param_groups": groups}


def _classify(model: nn.Module) -> Iterator[tuple[str, str, nn.Parameter]]:
    """Name and kind of each trained parameter; a shared one comes once."""
    seen: set[nn.Parameter] = set()
    for module_name, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            if not parameter.requires_grad or parameter in seen:
                continue
            seen.add(parameter)
            if isinstance(module, _NORMS):
                kind = "norm"
            elif name in _POSITIONS:
                kind = "position"
            elif isinstance(module, nn.Embedding) or name in (*_LEVELS, *_TOKENS):
                kind = "embedding"
            else:
                kind = "weight"
            yield f"{module_name}.{name}".lstrip("."), kind, parameter


def max_grad_norm(cfg: CfgNode) -> float:
    """The largest norm that all gradients together may have; inf if there is no limit.

    It is CLIP_VALUE with CLIP_GRADIENTS.CLIP_TYPE "full_model", Mask2Former's; the other types are
    detectron2's and part of the optimizer.

    Raises:
        UserError: an unknown CLIP_TYPE.
    """
    clipping = cfg.SOLVER.CLIP_GRADIENTS
    if clipping.CLIP_TYPE not in ("full_model", "value", "norm"):
        raise UserError(
            f"SOLVER.CLIP_GRADIENTS.CLIP_TYPE is {clipping.CLIP_TYPE!r}; "
            "expected full_model, value or norm"
        )
    whole = clipping.ENABLED and clipping.CLIP_TYPE == "full_model"
    return clipping.CLIP_VALUE if whole else math.inf
