"""Reading checkpoints: any format that detectron2 knows, no code of a file is ever executed."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from detectron2.utils.file_io import PathManager

from ddep.checkpoint.safe_pickle import load_pickle
from ddep.errors import UserError

# Where files keep their state dict: most of the world, PyTorch Lightning and its like, Detectron.
_STATE_DICT_KEYS = ("model", "state_dict", "blobs")


def local_path(path: str) -> str:
    """The file that ``path`` means on this machine; downloads and caches what is not local.

    Args:
        path: a file, or what detectron2 takes in its place (``https://...``, ``detectron2://...``).

    Raises:
        UserError: there is no such file, or it cannot be downloaded.
    """
    try:
        local = PathManager.get_local_path(path)
    except OSError as error:
        raise UserError(f"checkpoint {path} cannot be fetched: {error}") from error
    if not os.path.isfile(local):
        raise UserError(f"checkpoint {path} does not exist or is not a file; check the path")
    return local


def read_checkpoint(path: str) -> dict[str, Any]:
    """Read a checkpoint onto the CPU.

    ``.pkl`` is the format of detectron2's model zoo (or of Detectron's, NumPy arrays either way),
    everything else is what ``torch.save`` writes. The state dict may be the whole file, or lie
    below ``model`` or ``state_dict``.

    Returns:
        ``{"model": {name: tensor}, ...}`` with whatever else the file holds. Zoo files have
        ``__author__`` and ``matching_heuristics``, see :class:`ddep.checkpoint.Checkpointer`.

    Raises:
        UserError: not a file, truncated, of another format, or with objects other than tensors and
            plain containers.
    """
    local = local_path(path)
    if path.endswith(".safetensors"):
        raise UserError(
            f"{path} is a safetensors file, which is not read yet; "
            "save its tensors with torch.save under the extension .pth"
        )
    try:
        if path.endswith(".pkl"):
            with open(local, "rb") as file:
                data = load_pickle(file)
        else:
            data = torch.load(local, map_location="cpu", weights_only=True)
    except Exception as error:  # garbage makes an unpickler raise almost anything
        raise UserError(f"{path} cannot be read: {_explain(error)}") from error
    return _find_weights(path, data)


def _explain(error: Exception) -> str:
    foreign = re.search(r"GLOBAL ([\w.]+\.\w+)", str(error))
    if foreign:
        return (
            f"it holds a Python object ({foreign[1]}), and unpickling that could run code; "
            "expected tensors and plain containers: save its state dict alone with torch.save"
        )
    return (
        f"it is truncated or not a checkpoint ({type(error).__name__}); expected a file that "
        "torch.save wrote, or a .pkl of detectron2's model zoo: copy or download it again"
    )


def _find_weights(path: str, data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise UserError(f"{path} holds a {type(data).__name__}; expected a dict of named tensors")
    nested = next((k for k in _STATE_DICT_KEYS if isinstance(data.get(k), Mapping)), None)
    weights = data if nested is None else data[nested]
    rest = {} if nested is None else {k: v for k, v in data.items() if k != nested}
    if path.endswith(".pkl") and not any("." in str(name) for name in weights):
        # Detectron's zoo: Caffe2's names, with the optimizer's state among them.
        weights = {k: v for k, v in weights.items() if not k.endswith("_momentum")}
        rest = {"__author__": "Caffe2", "matching_heuristics": True}
    for name, value in weights.items():
        if isinstance(value, np.ndarray):
            weights[name] = torch.from_numpy(value)
        elif not isinstance(value, torch.Tensor):
            raise UserError(
                f"{path} holds a {type(value).__name__} named {name!r}; expected named tensors, "
                "bare or below 'model' or 'state_dict'"
            )
    if not weights:
        raise UserError(f"{path} holds no weights; expected a dict of named tensors")
    return {**rest, "model": weights}
