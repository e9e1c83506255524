"""Load a state dict into a model, and record what happens to every weight."""

from __future__ import annotations

from collections.abc import Container, Sequence
from typing import Any

import torch
from detectron2.checkpoint.c2_model_loading import convert_c2_detectron_names
from torch import nn
from torch.nn.modules.utils import consume_prefix_in_state_dict_if_present

from ddep.checkpoint.groups import CONFIGURED, TRANSFERABLE, group_of, own_groups
from ddep.checkpoint.load_report import LoadReport
from ddep.errors import UserError

StateDict = dict[str, torch.Tensor]
# Where models have their encoder: by itself, or with an FPN around it.
_ENCODERS = ("backbone.", "backbone.bottom_up.")


def load_weights(
    model: nn.Module, state_dict: StateDict, path: str, transfer: Sequence[str] = TRANSFERABLE
) -> LoadReport:
    """Copy the weights that fit from ``state_dict`` into ``model``.

    Modules may rename weights (``_load_from_state_dict``), which is how checkpoints of older
    versions load. An encoder's weights (``backbone.*``) also fit a model with an FPN around the
    encoder (``backbone.bottom_up.*``).

    Args:
        model: not wrapped in DistributedDataParallel.
        state_dict: name -> tensor; names may start with "module.". Changed in place.
        path: where ``state_dict`` comes from, for messages.
        transfer: the groups of TRANSFERABLE to load. CONFIGURED is never loaded, everything else
            always.

    Raises:
        UserError: no parameter of the model is in ``state_dict`` with its shape.
    """
    consume_prefix_in_state_dict_if_present(state_dict, "module.")
    found = list(state_dict)
    shapes = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    _enter_fpn(state_dict, shapes)
    own = own_groups(model)
    report = LoadReport(path, own)
    kept = {*CONFIGURED, *TRANSFERABLE}.difference(transfer)

    def sort_out(_module: nn.Module, candidates: StateDict, *_: Any) -> None:
        """Remove what must not be loaded. Runs for each module, after its parents' renames."""
        for name in [name for name in candidates if name in shapes]:
            if group_of(name, own) in kept:
                report.left_out.append(name)
                del candidates[name]
            elif tuple(candidates[name].shape) != shapes[name]:
                report.mismatched[name] = (tuple(candidates[name].shape), shapes[name])
                del candidates[name]

    hooks = [module.register_load_state_dict_pre_hook(sort_out) for module in model.modules()]
    try:
        missing, report.unused = model.load_state_dict(state_dict, strict=False)
    finally:
        for hook in hooks:
            hook.remove()
    taken_out = {*report.left_out, *report.mismatched}
    report.new = [
        name for name in missing if name not in taken_out and group_of(name, own) not in CONFIGURED
    ]
    absent = taken_out.union(missing)
    report.loaded = [name for name in shapes if name not in absent]

    parameters = {name for name, _ in model.named_parameters()}
    if parameters.isdisjoint([*report.loaded, *report.left_out]):
        raise UserError(_nothing_fits(report, found, list(shapes)))
    return report


def _enter_fpn(state_dict: StateDict, expected: Container[str]) -> None:
    """Rename an encoder's weights, in place, if the model has an FPN around its encoder."""
    plain, inner = _ENCODERS
    for name in [name for name in state_dict if name.startswith(plain)]:
        inside = inner + name.removeprefix(plain)
        if name not in expected and inside in expected and inside not in state_dict:
            state_dict[inside] = state_dict.pop(name)


def from_model_zoo(checkpoint: dict[str, Any], model: nn.Module) -> StateDict:
    """The state dict of an ImageNet backbone's checkpoint, under the names of ``model``.

    detectron2 marks such files with ``matching_heuristics``, and searches for the module whose
    names end in theirs. Here it is always ``model.backbone``, or the ``bottom_up`` of its FPN.

    Args:
        checkpoint: as :func:`ddep.checkpoint.read_checkpoint` returns it.
        model: has a ``backbone``.

    Raises:
        UserError: two weights would get the same name; the file is damaged.
    """
    weights = checkpoint["model"]
    if checkpoint.get("__author__") == "Caffe2":
        weights, _ = from_caffe2(weights)
    expected = model.state_dict().keys()
    return {
        next((p + name for p in _ENCODERS if p + name in expected), name): tensor
        for name, tensor in weights.items()
    }


def from_caffe2(weights: StateDict) -> tuple[StateDict, dict[str, str]]:
    """Give Caffe2's weights detectron2's names.

    Returns:
        The weights, and new name -> old name.

    Raises:
        UserError: two weights would get the same name; the file is damaged.
    """
    try:
        return convert_c2_detectron_names(dict(weights))
    except AssertionError as error:
        raise UserError("two of Caffe2's weights get the same name; the file is damaged") from error


def _nothing_fits(report: LoadReport, found: list[str], expected: list[str]) -> str:
    if report.mismatched:
        advice = f"{next(report.mismatches())}; use a config that describes the same model"
    else:
        advice = (
            f"found {', '.join(found[:3])}, ..., expected {', '.join(expected[:3])}, ...; "
            "tools/convert-pretrained.py converts other projects' files"
        )
    return f"none of the {len(found)} weights in {report.path} fits the model: {advice}"
