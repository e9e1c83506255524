"""Read ``.pkl`` checkpoints (of detectron2's and Detectron's model zoos) without running code."""

from __future__ import annotations

import io
import math
import mmap
import pickle
import re
from typing import IO, Any

import numpy as np
import torch

from ddep.checkpoint.safe_pickle import CONTAINERS, Buildable, SafeUnpickler
from ddep.checkpoint.torch_files import check_geometry, load_torch

_DTYPE = re.compile(r"(f[248]|[iu][1248]|b1)")


def load_pickle(file: IO[bytes]) -> Any:
    """Unpickle plain containers, numbers, strings, NumPy arrays and torch tensors.

    Args:
        file: a file on the disk, because it is memory-mapped.

    Returns:
        Its content; arrays are :class:`PickledArray`.

    Raises:
        pickle.UnpicklingError: the file asks for anything else ("GLOBAL module.name"), or its sizes
            contradict each other.
        Exception: of nearly any type, if the file is not a pickle.
    """
    # A memory map never reads beyond the file, whatever lengths a pickle claims.
    with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as view:
        return SafeUnpickler(view, _ALLOWED).load()


class _DType(Buildable):
    """A dtype of plain numbers under construction: the pickle gives its byte order as a state."""

    def __init__(self, name: str, *_: Any) -> None:
        if type(name) is not str or not _DTYPE.fullmatch(name):
            raise pickle.UnpicklingError("an array of something else than numbers")
        self.dtype = np.dtype(name)

    def build(self, state: Any) -> None:
        version, order, *parts = state
        if order not in ("<", ">", "|", "=") or any(part is not None for part in parts[:3]):
            raise pickle.UnpicklingError("an array of something else than numbers")
        self.dtype = self.dtype.newbyteorder(order)


class PickledArray(Buildable):
    """A NumPy array under construction: the pickle gives its shape and bytes as a state.

    Attributes:
        array: the array; empty until its state is given.
    """

    def __init__(self) -> None:
        self.array = np.empty(0, np.float32)

    def build(self, state: Any) -> None:
        version, shape, dtype, is_fortran, data = state
        if type(data) is str:
            data = data.encode("latin1")
        self.array = _array(data, dtype, shape, "F" if is_fortran else "C")


def _array(data: Any, dtype: Any, shape: Any, order: Any) -> np.ndarray:
    if not isinstance(dtype, _DType) or not isinstance(data, (bytes, bytearray)):
        raise pickle.UnpicklingError("an array of something else than numbers")
    if type(shape) is not tuple or any(type(n) is not int or n < 0 for n in shape):
        raise pickle.UnpicklingError("an array's shape is no tuple of whole numbers")
    if math.prod(shape) * dtype.dtype.itemsize != len(data) or order not in ("C", "F"):
        raise pickle.UnpicklingError("an array has another shape than its bytes")
    values = np.frombuffer(data, dtype.dtype).reshape(shape, order=order)
    # torch takes only numbers in native byte order, and writable arrays.
    return values.astype(dtype.dtype.newbyteorder("="), order="C")


def _reconstruct(*_: Any) -> PickledArray:
    return PickledArray()


def _from_buffer(data: Any, dtype: Any, shape: Any, order: Any) -> PickledArray:
    found = PickledArray()
    found.array = _array(data, dtype, shape, order)
    return found


def _scalar(dtype: Any, data: Any) -> int | float | bool:
    if type(data) is str:
        data = data.encode("latin1")
    return _array(data, dtype, (), "C").item()


def _load_storage(data: Any) -> Any:
    """Stands in for ``torch.storage._load_from_bytes``, which would unpickle anything."""
    if type(data) is not bytes:
        raise pickle.UnpicklingError("a storage without bytes")
    return load_torch(io.BytesIO(data))


def _rebuild_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> torch.Tensor:
    if not isinstance(storage, torch.storage.TypedStorage):
        raise pickle.UnpicklingError("a tensor without a storage")
    elements = storage._untyped_storage.nbytes() // storage.dtype.itemsize
    check_geometry(offset, size, stride, elements)
    return torch._utils._rebuild_tensor(storage, offset, tuple(size), tuple(stride))


def _rebuild_parameter(tensor: Any, *_: Any) -> torch.Tensor:
    if not isinstance(tensor, torch.Tensor):
        raise pickle.UnpicklingError("a parameter without a tensor")
    return tensor


_ALLOWED: dict[str, Any] = {
    **CONTAINERS,
    "numpy.dtype": _DType,
    # Only used as an argument.
    "numpy.ndarray": None,
    "torch._utils._rebuild_tensor_v2": _rebuild_tensor,
    "torch._utils._rebuild_parameter": _rebuild_parameter,
    "torch.storage._load_from_bytes": _load_storage,
}
# NumPy's module names have changed over time, but the functions are the same.
for _core in ("numpy.core", "numpy._core"):
    _ALLOWED |= {
        f"{_core}.multiarray._reconstruct": _reconstruct,
        f"{_core}.multiarray.scalar": _scalar,
        f"{_core}.numeric._frombuffer": _from_buffer,
    }
