"""Loads the compiled operators, if they were built, and decides whether they run.

``pip install -e . --no-build-isolation`` compiles them. The environment variable ``DDEP_OPS``
forces one implementation: ``compiled`` or ``reference``.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
from collections.abc import Iterator
from functools import cache
from types import ModuleType

import torch

from ddep.errors import UserError
from ddep.ops import fake

_LOGGER = logging.getLogger(__name__)
_decomposed = False
_BUILD = "run 'pip install -e . --no-build-isolation' with a C++ compiler"
_BUILD_CUDA = "run 'FORCE_CUDA=1 pip install -e . --no-build-isolation' with the CUDA toolkit"


@torch.compiler.assume_constant_result
def use_compiled(device_type: str) -> bool:
    """Return whether the compiled operators run for tensors on this type of device ("cpu", "cuda").

    The choice is logged once for each type of device. Call it as ``extension.use_compiled``: in a
    module that imports the name itself, tracing by torch 2.4 overwrites it with the result.

    Raises:
        UserError: ``DDEP_OPS`` is neither ``compiled`` nor ``reference``, or it is ``compiled`` and
            nothing was compiled for the device.
    """
    return not _decomposed and _decide(device_type)


@contextlib.contextmanager
def decomposed() -> Iterator[None]:
    """Within, operators are PyTorch's own ones, for ``torch.export`` and formats made from it.

    Sizes may be symbols there. Only what a model in evaluation needs is so: deformable attention
    and attention inside windows.
    """
    global _decomposed
    before, _decomposed = _decomposed, True
    try:
        yield
    finally:
        _decomposed = before


def is_decomposed() -> bool:
    """Whether this is within :func:`decomposed`."""
    return _decomposed


@cache
def _decide(device_type: str) -> bool:
    choice = os.environ.get("DDEP_OPS", "")
    if choice not in ("", "compiled", "reference"):
        raise UserError(f"DDEP_OPS is '{choice}'; expected 'compiled', 'reference' or nothing")
    if choice == "reference":
        _LOGGER.info("Operators on %s: reference, as DDEP_OPS says", device_type)
        return False
    missing = why_not_compiled(device_type)
    if missing and choice == "compiled":
        raise UserError(f"DDEP_OPS is 'compiled', but {missing}")
    if missing:
        _LOGGER.warning("Operators on %s: reference, as %s", device_type, missing)
        return False
    kernels = f" ({_LIBRARY.cpu_kernels} kernels)" if device_type == "cpu" else ""
    _LOGGER.info("Operators on %s: compiled%s", device_type, kernels)
    return True


def why_not_compiled(device_type: str) -> str:
    """Return why the compiled operators cannot run on a type of device, and the remedy; or ""."""
    if device_type not in ("cpu", "cuda", "meta"):
        return "the compiled operators are for CPU and CUDA"
    if _LIBRARY is None:
        return "DDEP_OPS was 'reference' when ddep was imported"
    if isinstance(_LIBRARY, ModuleNotFoundError) and _LIBRARY.name == "ddep._C":
        return f"the operators were not compiled; {_BUILD}"
    if isinstance(_LIBRARY, ImportError):
        # Typically they were compiled with another version of PyTorch.
        return (
            f"the compiled operators cannot be loaded ({_LIBRARY}); to compile them again, {_BUILD}"
        )
    if device_type == "cuda" and not _LIBRARY.with_cuda:
        return f"the operators were compiled without CUDA; {_BUILD_CUDA}"
    return ""


def _load() -> ModuleType | ImportError | None:
    """Import the library, which registers the operators, and register the shapes they return.

    Returns:
        The library, or the error that importing it raised. None if ``DDEP_OPS`` is ``reference``:
        then even a library that crashes does no harm.
    """
    if os.environ.get("DDEP_OPS") == "reference":
        return None
    try:
        library = importlib.import_module("ddep._C")
    except ImportError as error:
        return error
    try:
        fake.register()
    except RuntimeError as error:  # of an earlier version, which lacked an operator
        return ImportError(str(error))
    return library


_LIBRARY = _load()
