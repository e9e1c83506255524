"""Read files of ``torch.save``, after checking them.

``torch.load(weights_only=True)`` runs no code, but trusts the sizes in a file and allocates what
they ask for. So the pickle is read twice, first with stand-ins for tensors that only compare sizes.

Of the files in ``tests/checkpoint/test_hostile.py``, torch 2.15 hangs on nested keys, loads tensors
of 10^12 repeated elements, and unpacks compressed records of any size (with ``mmap=True``, which
old files do not allow, it takes the packed bytes for numbers). torch 2.6 crashes on a storage that
is larger than its record.
"""

from __future__ import annotations

import collections
import io
import math
import mmap
import pickle
import zipfile
from dataclasses import dataclass
from typing import IO, Any

import torch

from ddep.checkpoint.safe_pickle import CONTAINERS, SafeUnpickler

_MAX_REPEATED = 10**6

_STORAGE_BYTES = {
    "Double": 8,
    "Float": 4,
    "Half": 2,
    "BFloat16": 2,
    "Long": 8,
    "Int": 4,
    "Short": 2,
    "Char": 1,
    "Byte": 1,
    "Bool": 1,
}


@dataclass(frozen=True)
class _Type:
    """Stands in for a dtype or a type of storage."""

    item_bytes: int


@dataclass(frozen=True)
class _Storage:
    """Stands in for a storage."""

    size_bytes: int
    item_bytes: int


class _Tensor:
    """Stands in for a tensor."""


def load_torch(file: IO[bytes]) -> Any:
    """Load a file of ``torch.save``, in the current format (zip) or the legacy one, onto the CPU.

    Args:
        file: a seekable file.

    Raises:
        pickle.UnpicklingError: the file asks for more than tensors and plain containers ("GLOBAL
            module.name"), or its sizes contradict each other.
        Exception: of nearly any type, if the file is damaged or of another kind.
    """
    size_bytes = file.seek(0, io.SEEK_END)
    file.seek(0)
    is_zip = file.read(4) == b"PK\x03\x04"
    file.seek(0)
    if is_zip:
        _check_zip(file, size_bytes)
    else:
        _check_legacy(file, size_bytes)
    file.seek(0)
    return torch.load(file, map_location="cpu", weights_only=True)


def check_geometry(offset: int, size: Any, stride: Any, elements: int) -> None:
    """Check that a tensor with this offset, size and stride lies within a storage.

    Args:
        elements: the storage's number of elements. A tensor that repeats some of them (expanded)
            may have more, up to a million.

    Raises:
        pickle.UnpicklingError: it does not, or these are not whole numbers.
    """
    size, stride = tuple(size), tuple(stride)
    numbers = (offset, *size, *stride)
    if len(size) != len(stride) or any(type(n) is not int or n < 0 for n in numbers):
        raise pickle.UnpicklingError("a tensor's size or stride is no list of whole numbers")
    count = math.prod(size)
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if count > max(elements, _MAX_REPEATED) or (count and last >= elements):
        raise pickle.UnpicklingError("a tensor has more elements than the file")


def _check_zip(file: IO[bytes], size_bytes: int) -> None:
    with zipfile.ZipFile(file) as archive:
        records = archive.infolist()
        names = [record.filename for record in records]
        if any(record.compress_type != zipfile.ZIP_STORED for record in records):
            raise pickle.UnpicklingError("a compressed record, which torch.save never writes")
        if sum(record.file_size for record in records) > size_bytes:
            raise pickle.UnpicklingError("records that are larger than the file")
        if len({name.lower() for name in names}) < len(names):
            raise pickle.UnpicklingError("two records of one name")
        folder = names[0].split("/")[0]
        sizes = {record.filename: record.file_size for record in records}
        data = archive.read(f"{folder}/data.pkl")

    def persistent_load(found: Any) -> _Storage:
        tag, storage_type, key, _, elements = found
        size = sizes[f"{folder}/data/{key}"]
        _check_storage(tag, storage_type, elements, size)
        return _Storage(size, storage_type.item_bytes)

    SafeUnpickler(io.BytesIO(data), _ALLOWED, persistent_load).load()


def _check_legacy(file: IO[bytes], size_bytes: int) -> None:
    sizes: dict[Any, int] = {}

    def persistent_load(found: Any) -> _Storage:
        tag, storage_type, key, _, elements, view = found
        _check_storage(tag, storage_type, elements, size_bytes)
        if type(key) not in (str, int):
            raise pickle.UnpicklingError("a storage without a name")
        size = elements * storage_type.item_bytes
        sizes[key] = max(size, sizes.get(key, 0))
        # torch allocates all storages before it reads any.
        if sum(sizes.values()) > size_bytes:
            raise pickle.UnpicklingError("storages that are larger than the file")
        if view is not None:
            _, offset, count = view
            check_geometry(offset, (count,), (1,), elements)
            size = count * storage_type.item_bytes
        return _Storage(size, storage_type.item_bytes)

    # A memory map never reads beyond the file, whatever lengths a pickle claims.
    data = (
        file
        if isinstance(file, io.BytesIO)
        else mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    )
    if SafeUnpickler(data, {}).load() != torch.serialization.MAGIC_NUMBER:
        raise pickle.UnpicklingError("a pickle, but none of torch.save")
    SafeUnpickler(data, {}).load()  # the version
    SafeUnpickler(data, {}).load()  # facts about the machine that wrote the file
    SafeUnpickler(data, _ALLOWED, persistent_load).load()
    SafeUnpickler(data, {}).load()  # the storages' keys


def _check_storage(tag: Any, storage_type: Any, elements: Any, room_bytes: int) -> None:
    if tag != "storage" or not isinstance(storage_type, _Type) or type(elements) is not int:
        raise pickle.UnpicklingError("something outside the pickle that is no storage")
    if not 0 <= elements * storage_type.item_bytes <= room_bytes:
        raise pickle.UnpicklingError("a storage that is larger than its record")


def _check_tensor(storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> _Tensor:
    if not isinstance(storage, _Storage):
        raise pickle.UnpicklingError("a tensor without a storage")
    check_geometry(offset, size, stride, storage.size_bytes // storage.item_bytes)
    return _Tensor()


def _check_tensor_v3(
    storage: Any, offset: Any, size: Any, stride: Any, grad: Any, hooks: Any, dtype: Any, *_: Any
) -> _Tensor:
    if not isinstance(storage, _Storage) or not isinstance(dtype, _Type):
        raise pickle.UnpicklingError("a tensor without a storage or a dtype")
    check_geometry(offset, size, stride, storage.size_bytes // dtype.item_bytes)
    return _Tensor()


def _check_parameter(tensor: Any, *_: Any) -> _Tensor:
    if not isinstance(tensor, _Tensor):
        raise pickle.UnpicklingError("a parameter without a tensor")
    return tensor


def _check_size(numbers: Any) -> tuple[int, ...]:
    if not isinstance(numbers, (list, tuple)) or any(type(n) is not int for n in numbers):
        raise pickle.UnpicklingError("a size of something else than whole numbers")
    return tuple(numbers)


def _check_counter(counts: Any) -> dict[Any, Any]:
    # Used for the milestones of a learning rate schedule.
    if type(counts) is not dict:
        raise pickle.UnpicklingError("a Counter of something else than a dict")
    return collections.Counter(counts)


_ALLOWED: dict[str, Any] = {
    **CONTAINERS,
    "collections.Counter": _check_counter,
    "torch.Size": _check_size,
    "torch._utils._rebuild_tensor": _check_tensor,
    "torch._utils._rebuild_tensor_v2": _check_tensor,
    "torch._utils._rebuild_tensor_v3": _check_tensor_v3,
    "torch._utils._rebuild_parameter": _check_parameter,
    "torch.storage.UntypedStorage": _Type(1),
    **{f"torch.{name}Storage": _Type(size) for name, size in _STORAGE_BYTES.items()},
    **{f"torch.cuda.{name}Storage": _Type(size) for name, size in _STORAGE_BYTES.items()},
    **{
        str(dtype): _Type(dtype.itemsize)
        for dtype in vars(torch).values()
        if isinstance(dtype, torch.dtype)
    },
}
