"""Trace a model into a graph that takes any batch, height and width."""

from __future__ import annotations

import contextlib
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import nn
from torch.export import Dim, ExportedProgram
from torch.fx.experimental import _config as symbolic_shapes

from ddep.errors import UserError, one_line
from ddep.modeling.exportable import Exportable
from ddep.ops import extension
from ddep.tasks import registered_tasks, task_of
from ddep.tasks.class_names import class_names


def exportable(
    cfg: CfgNode, model: nn.Module, format_name: str, *, post_processing: bool
) -> Exportable:
    """The model as a function of tensors; its parameters need no gradients any more.

    Args:
        cfg: the model's config.
        model: put into evaluation mode.
        format_name: of :attr:`ddep.tasks.Task.exports`.
        post_processing: see :meth:`ddep.tasks.Task.exportable`.

    Raises:
        UserError: models of its kind are not exported in this format.
    """
    task = task_of(cfg)
    if format_name not in task.exports:
        others = [
            name
            for other in registered_tasks()
            if format_name in other.exports
            for name in other.meta_architectures
        ]
        raise UserError(
            f"MODEL.META_ARCHITECTURE is {cfg.MODEL.META_ARCHITECTURE}, which --to {format_name} "
            f"cannot express; expected {' or '.join(others)}"
        )
    model.eval().requires_grad_(False)
    return task.exportable(cfg, model, post_processing=post_processing)


def describe(
    cfg: CfgNode, model: Exportable, size: tuple[int, int] | None = None
) -> dict[str, Any]:
    """What the user of an exported file has to know; for JSON. ``size`` as for :func:`trace`."""
    return {
        "model": cfg.MODEL.META_ARCHITECTURE,
        "inputs": model.takes,
        "outputs": model.describes,
        "classes": class_names(cfg),
        "size_divisibility": model.size_divisibility,
        "size": size,
        "smallest_side": model.smallest_side,
        "min_size_test": cfg.INPUT.MIN_SIZE_TEST,
        "max_size_test": cfg.INPUT.MAX_SIZE_TEST,
        **model.facts(),
    }


@torch.no_grad()
def trace(
    model: Exportable, *, decompose: bool, size: tuple[int, int] | None = None
) -> ExportedProgram:
    """Trace ``model``.

    Args:
        model: in evaluation mode.
        decompose: into PyTorch's own operators; else the graph calls this project's.
        size: height and width in pixels of one image at a time; None traces a graph for batches of
            any number and all sizes, from :attr:`Exportable.smallest_side` on.

    Returns:
        A program whose inputs and results have the names that ``model`` gives them.

    Raises:
        UserError: the model cannot be traced.
    """
    # Not a multiple of the divisibility, so that padding is traced.
    height, width = size or (4 * model.smallest_side + 1, 5 * model.smallest_side + 2)
    examples = model.examples(1 if size else 2, height, width)
    batch = Dim("batch")
    sides = {
        2: Dim("height", min=model.smallest_side),
        3: Dim("width", min=model.smallest_side),
    }
    dynamic = {
        name: {0: batch, **(sides if example.dim() == 4 else {})}
        for name, example in examples.items()
    }
    operators = extension.decomposed() if decompose else contextlib.nullcontext()
    try:
        # Else a graph traced for several windows would refuse one, and so on.
        with operators, symbolic_shapes.patch(backed_size_oblivious=True):
            return torch.export.export(
                model, (), examples, dynamic_shapes=None if size else dynamic, strict=False
            )
    except (RuntimeError, ValueError, TypeError, NotImplementedError) as error:
        advice = "give the size of images with --size" if size is None else "choose another"
        cause = one_line(error).split(". ")[0][:300]
        raise UserError(f"the model cannot be traced: {cause}; {advice}") from error
