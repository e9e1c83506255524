"""Write a model as an ONNX file of standard operators."""

from __future__ import annotations

import contextlib
import io
import json
import logging
import warnings
from collections.abc import Iterator

import torch
from detectron2.config import CfgNode
from torch import nn

from ddep.errors import UserError, one_line
from ddep.export.checks import check_onnx
from ddep.export.trace import describe, exportable, trace
from ddep.files import atomic_write

# LayerNormalization is of 17, Gelu and bilinear GridSample ("linear") of 20.
OPSET = 20


def export_to_onnx(
    cfg: CfgNode,
    model: nn.Module,
    path: str,
    *,
    post_processing: bool,
    size: tuple[int, int] | None = None,
) -> None:
    """Write ``model`` for ONNX Runtime and others, with what it takes and gives as metadata.

    Args:
        cfg: the model's config.
        model: trained, on the CPU; its parameters need no gradients afterwards.
        path: the ``.onnx`` to write.
        post_processing: see :meth:`ddep.tasks.Task.exportable`.
        size: see :func:`ddep.export.trace.trace`.

    Raises:
        UserError: the packages of the extra ``export`` are missing, the model cannot be exported,
            or ``path`` cannot be written.
    """
    check_onnx()
    function = exportable(cfg, model, "onnx", post_processing=post_processing)
    program = trace(function, decompose=True, size=size)
    with _quiet():
        try:
            exported = torch.onnx.export(
                program,
                input_names=list(function.takes),
                output_names=list(function.describes),
                opset_version=OPSET,
                dynamo=True,
                # Runtimes fold and fuse by themselves; here that takes longer than all the rest.
                optimize=False,
                verbose=False,
            )
        except torch.onnx.errors.OnnxExporterError as error:
            raise UserError(
                f"the model's operators cannot be expressed in ONNX: {one_line(error)[:300]}"
            ) from error
        proto = exported.model_proto
    for key, value in describe(cfg, function, size).items():
        entry = proto.metadata_props.add()
        entry.key, entry.value = key, json.dumps(value)
    for node in proto.graph.node:  # where in which source file it comes from
        del node.metadata_props[:]
        node.doc_string = ""
    with atomic_write(path) as file:
        file.write(proto.SerializeToString())


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep back what the exporter says about every operator that it cannot fold."""
    levels = {name: logging.getLogger(name).level for name in ("onnxscript", "onnx_ir")}
    try:
        for name in levels:
            logging.getLogger(name).setLevel(logging.ERROR)
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        for name, level in levels.items():
            logging.getLogger(name).setLevel(level)
