"""Read checkpoints without executing code of the file or trusting the sizes in it."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from typing import Any

import torch
from detectron2.utils.file_io import PathManager

from ddep.checkpoint.pickle_files import PickledArray, load_pickle
from ddep.checkpoint.safetensors_files import load_safetensors
from ddep.checkpoint.torch_files import load_torch
from ddep.errors import UserError

# Keys of the state dict in most files, in those of PyTorch Lightning, and in Detectron's.
_STATE_DICT_KEYS = ("model", "state_dict", "blobs")

# Names of the files in folders of Hugging Face and timm.
_FOLDER_FILES = ("model.safetensors", "model.safetensors.index.json", "pytorch_model.bin")

_SAFETENSORS = (".safetensors", ".safetensors.index.json")


def local_path(path: str) -> str:
    """The local file for ``path``; a remote file is downloaded and cached.

    Args:
        path: a file, or an address that detectron2 takes (``https://...``, ``detectron2://...``).

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

    ``.pkl`` is the format of detectron2's and Detectron's model zoos (both with NumPy arrays),
    ``.safetensors`` is Hugging Face's, and everything else is read as written by ``torch.save``.
    The state dict may be the whole file, or lie below ``model`` or ``state_dict``.

    Args:
        path: see :func:`local_path`; or a folder with a model of Hugging Face or timm.

    Returns:
        ``{"model": {name: tensor}, ...}`` with everything else that the file holds. Zoo files have
        ``__author__`` and ``matching_heuristics``, see :class:`ddep.checkpoint.Checkpointer`.

    Raises:
        UserError: the file is missing, truncated or of another format, or holds objects other than
            tensors and plain containers.
    """
    if os.path.isdir(path):
        path = _in_folder(path)
    local = local_path(path)
    try:
        data = _load(path, local)
    except UserError:
        raise
    except Exception as error:  # a damaged file can cause almost any exception
        raise UserError(f"{path} cannot be read: {_explain(error)}") from error
    return _find_weights(path, data)


def _in_folder(folder: str) -> str:
    paths = (os.path.join(folder, name) for name in _FOLDER_FILES)
    found = next((path for path in paths if os.path.isfile(path)), None)
    if found is None:
        raise UserError(
            f"checkpoint {folder} is a folder without {', '.join(_FOLDER_FILES[:-1])} or "
            f"{_FOLDER_FILES[-1]}; name a file in it"
        )
    return found


def _load(path: str, local: str) -> Any:
    if path.endswith(_SAFETENSORS):
        return load_safetensors(local)
    with open(local, "rb") as file:
        return load_pickle(file) if path.endswith(".pkl") else load_torch(file)


def _explain(error: Exception) -> str:
    foreign = re.search(r"GLOBAL ([\w.]+\.\w+)", str(error))
    if foreign:
        return (
            f"it holds a Python object ({foreign[1]}), and unpickling that could run code; "
            "expected tensors and plain containers: save only its state dict with torch.save"
        )
    return (
        f"it is truncated or not a checkpoint ({type(error).__name__}); expected a file that "
        "torch.save wrote, a .pkl of detectron2's model zoo or a .safetensors: copy or download it "
        "again"
    )


def _find_weights(path: str, data: Any) -> dict[str, Any]:
    if not isinstance(data, dict):
        raise UserError(f"{path} holds a {type(data).__name__}; expected a dict of named tensors")
    nested = next((k for k in _STATE_DICT_KEYS if isinstance(data.get(k), Mapping)), None)
    weights = data if nested is None else data[nested]
    rest = {} if nested is None else {k: v for k, v in data.items() if k != nested}
    if path.endswith(".pkl") and not any("." in str(name) for name in weights):
        # Detectron's zoo has Caffe2's names, and the optimizer's state beside the weights.
        weights = {k: v for k, v in weights.items() if not str(k).endswith("_momentum")}
        rest = {"__author__": "Caffe2", "matching_heuristics": True}
    for name, value in weights.items():
        if not isinstance(name, str) or not name.isprintable():
            raise UserError(f"{path} holds something named {name!r:.80}; expected names of weights")
        if isinstance(value, PickledArray):
            weights[name] = value = torch.from_numpy(value.array)
        if not isinstance(value, torch.Tensor):
            raise UserError(
                f"{path} holds a {type(value).__name__} named {name!r}; expected named tensors, "
                "bare or below 'model' or 'state_dict'"
            )
        if value.is_complex():
            raise UserError(f"{path} holds {name}, whose numbers are complex; expected real ones")
    if not weights:
        raise UserError(f"{path} holds no weights; expected a dict of named tensors")
    return {**rest, "model": weights}
