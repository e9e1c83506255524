"""Run a file that :mod:`ddep.export` wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ddep.errors import UserError, one_line
from ddep.export.checks import check_onnx
from ddep.export.to_torch import DESCRIPTION


class ExportedModel:
    """A ``.pt2`` or ``.onnx`` file as a function of tensors.

    Attributes:
        description: what :func:`ddep.export.trace.describe` says about the model.
    """

    description: dict[str, Any]

    def __init__(self, path: str | Path, *, threads: int | None = None) -> None:
        """
        Args:
            path: the file; its suffix says which runtime reads it.
            threads: of ONNX Runtime; None takes PyTorch's number.

        Raises:
            UserError: the file cannot be read.
        """
        path = Path(path)
        readers = {".pt2": self._read_torch, ".onnx": self._read_onnx}
        if path.suffix not in readers:
            raise UserError(f"{path} is no exported model; expected a .pt2 or .onnx file")
        if not path.is_file():
            raise UserError(f"{path} does not exist; expected a file that tools/export.py wrote")
        try:
            readers[path.suffix](path, threads or torch.get_num_threads())
        except UserError:
            raise
        except Exception as error:  # both runtimes raise all kinds of things for a damaged file
            raise UserError(f"{path} cannot be read: {one_line(error)[:300]}") from error

    def _read_torch(self, path: Path, threads: int) -> None:
        extra = {DESCRIPTION: ""}
        program = torch.export.load(path, extra_files=extra)
        self.description = json.loads(extra[DESCRIPTION])
        self._run = program.module()

    def _read_onnx(self, path: Path, threads: int) -> None:
        check_onnx()
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.log_severity_level = 3  # errors
        session = onnxruntime.InferenceSession(str(path), options)
        properties = session.get_modelmeta().custom_metadata_map
        self.description = {key: json.loads(value) for key, value in properties.items()}
        names = [output.name for output in session.get_outputs()]

        def run(**inputs: Tensor) -> dict[str, Tensor]:
            arrays = {name: np.ascontiguousarray(tensor) for name, tensor in inputs.items()}
            results = session.run(names, arrays)
            return {name: torch.from_numpy(r) for name, r in zip(names, results, strict=True)}

        self._run = run

    @torch.no_grad()
    def __call__(self, **inputs: Tensor) -> dict[str, Tensor]:
        """Compute the results by name from the inputs by name; see ``description``."""
        return self._run(**inputs)
