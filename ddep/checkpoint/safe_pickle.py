"""Reading ``.pkl`` checkpoints (detectron2's and Detectron's model zoos) without running code."""

from __future__ import annotations

import collections
import io
import pickle
from collections.abc import Callable
from typing import IO, Any

import numpy as np
import torch


def load_pickle(file: IO[bytes]) -> Any:
    """Unpickle plain containers, numbers, strings, NumPy arrays and torch tensors.

    Raises:
        pickle.UnpicklingError: the file asks for anything else ("GLOBAL module.name").
        Exception: of nearly any type, if the file is not a pickle.
    """
    # latin1 is how Python 3 reads the arrays that Python 2 pickled.
    return _TensorUnpickler(file, encoding="latin1").load()


def _load_storage(data: bytes) -> Any:
    """Stand-in for ``torch.storage._load_from_bytes``, which would unpickle anything."""
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _encode(text: str, encoding: str) -> bytes:
    """Stand-in for ``_codecs.encode``, by which protocol 2 writes bytes, for its one encoding."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"bytes are encoded as {encoding}, not as latin1")
    return text.encode(encoding)


# What NumPy itself writes; its module names have changed over time, the functions are the same.
_ARRAY = np.zeros(0).__reduce__()[0]
_SCALAR = np.float32(0).__reduce__()[0]

_ALLOWED: dict[str, Callable[..., Any]] = {
    "collections.OrderedDict": collections.OrderedDict,
    "_codecs.encode": _encode,
    "numpy.ndarray": np.ndarray,
    "numpy.dtype": np.dtype,
    "numpy.core.multiarray._reconstruct": _ARRAY,
    "numpy._core.multiarray._reconstruct": _ARRAY,
    "numpy.core.multiarray.scalar": _SCALAR,
    "numpy._core.multiarray.scalar": _SCALAR,
    "torch._utils._rebuild_tensor_v2": torch._utils._rebuild_tensor_v2,
    "torch._utils._rebuild_parameter": torch._utils._rebuild_parameter,
    "torch.storage._load_from_bytes": _load_storage,
}


class _TensorUnpickler(pickle.Unpickler):
    def find_class(self, module_name: str, global_name: str) -> Any:
        name = f"{module_name}.{global_name}"
        if name not in _ALLOWED:
            raise pickle.UnpicklingError(f"GLOBAL {name} is not allowed")
        return _ALLOWED[name]
