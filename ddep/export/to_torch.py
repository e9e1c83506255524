"""Write a model as a ``.pt2`` file, which ``torch.export.load`` reads."""

from __future__ import annotations

import json

import torch
from detectron2.config import CfgNode
from torch import nn

from ddep.export.trace import describe, exportable, trace
from ddep.files import atomic_write

# The file inside a .pt2 that says what the model takes and gives.
DESCRIPTION = "description.json"


def export_to_torch(
    cfg: CfgNode,
    model: nn.Module,
    path: str,
    *,
    post_processing: bool,
    decompose: bool,
    size: tuple[int, int] | None = None,
) -> None:
    """Write ``model`` as a program for the device that it is on.

    Args:
        cfg: the model's config.
        model: trained; its parameters need no gradients afterwards.
        path: the ``.pt2`` to write.
        post_processing: see :meth:`ddep.tasks.Task.exportable`.
        decompose: the file needs PyTorch alone; else its reader has to import ``ddep`` first, and
            the compiled operators run.
        size: see :func:`ddep.export.trace.trace`.

    Raises:
        UserError: the model cannot be exported, or ``path`` cannot be written.
    """
    function = exportable(cfg, model, "torch", post_processing=post_processing)
    program = trace(function, decompose=decompose, size=size)
    description = {**describe(cfg, function, size), "needs_ddep": not decompose}
    with atomic_write(path) as file:
        torch.export.save(program, file, extra_files={DESCRIPTION: json.dumps(description)})
