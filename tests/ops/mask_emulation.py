"""The CUDA kernels of the mask operators as functions of tensors, run by an emulation of CUDA."""

from __future__ import annotations

import ctypes
from typing import NamedTuple

import torch
from torch import Tensor

POINTERS = ("logits", "images_of", "queries_of", "targets_of", "masks", "at")


class Case(NamedTuple):
    """Arguments of the mask losses and costs; see ``ddep/ops/csrc/mask_pairs.h``."""

    mask_logits: list[Tensor]
    images: Tensor
    queries: Tensor
    masks: Tensor
    targets: Tensor
    points: Tensor | None  # (L, N, P, 2) for losses, (B, P, 2) for costs, None for all pixels

    @property
    def real(self) -> torch.dtype:
        """The dtype of sums and results."""
        double = self.mask_logits[0].dtype == torch.float64
        return torch.float64 if double else torch.float32


class _Arguments(ctypes.Structure):
    _fields_ = (
        [(name, ctypes.c_int64) for name in ("layers", "images", "queries", "height", "width")]
        + [(name, ctypes.c_int64) for name in ("pairs", "targets", "mask_height", "mask_width")]
        + [("points", ctypes.c_int64)]
        + [(name, ctypes.c_void_p) for name in POINTERS]
        + [("type", ctypes.c_char_p), ("reversed", ctypes.c_bool)]
    )


def _pointers(tensors: list[Tensor]) -> ctypes.Array:
    assert all(tensor.is_contiguous() for tensor in tensors)
    return (ctypes.c_void_p * len(tensors))(*(tensor.data_ptr() for tensor in tensors))


class MaskKernels:
    """The compiled kernels. ``reversed``: threads of a block take turns in the other order."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._library = library

    def _run(self, name: str, *arguments: object) -> None:
        function = getattr(self._library, name)
        function.restype = ctypes.c_char_p
        tensors = [ctypes.c_void_p(a.data_ptr()) if isinstance(a, Tensor) else a for a in arguments]
        error = function(*tensors)
        assert error is None, error

    def _arguments(self, case: Case, reversed: bool) -> _Arguments:
        logits, points = case.mask_logits, case.points
        self._kept = _pointers(logits)
        pairs = case.images.shape[1]
        sizes = (len(logits), *logits[0].shape, pairs, *case.masks.shape)
        for tensor in case[1:5]:
            assert tensor.is_contiguous()
        return _Arguments(
            *sizes,
            logits[0][0, 0].numel() if points is None else points.shape[-2],
            ctypes.cast(self._kept, ctypes.c_void_p),
            case.images.data_ptr(),
            case.queries.data_ptr(),
            case.targets.data_ptr(),
            case.masks.data_ptr(),
            None if points is None else points.data_ptr(),
            str(logits[0].dtype).removeprefix("torch.").encode(),
            reversed,
        )

    def uniform_points(
        self, seed: int, rows: int, num_points: int, *, on_device: bool = False
    ) -> Tensor:
        points = torch.full((rows, num_points, 2), float("nan"))
        numbers = (ctypes.c_int64(rows), ctypes.c_int64(num_points))
        self._run("emulate_uniform", ctypes.c_int64(seed), on_device, *numbers, points, False)
        return points

    def uncertain_points(
        self, case: Case, seed: int, drawing: tuple[int, int, int], *, reversed: bool = False
    ) -> Tensor:
        """``drawing``: numbers of points, of candidates, of uncertain ones. Two blocks run."""
        points = torch.full((*case.images.shape, drawing[0], 2), float("nan"))
        keys = torch.full((2, drawing[1]), -1)
        sizes = (ctypes.c_int64 * 3)(*drawing)
        arguments = ctypes.byref(self._arguments(case, reversed))
        seeds = (ctypes.c_int64(seed), ctypes.c_int64(2))
        self._run("emulate_uncertain", arguments, *seeds, sizes, keys, points)
        return points

    def losses(self, case: Case, *, reversed: bool = False) -> tuple[Tensor, Tensor]:
        loss = torch.full(case.images.shape, -1, dtype=case.real)
        dice = loss.clone()
        self._run("emulate_losses", ctypes.byref(self._arguments(case, reversed)), loss, dice)
        return loss, dice

    def losses_backward(
        self, case: Case, grad_loss: Tensor, grad_dice: Tensor, *, reversed: bool = False
    ) -> list[Tensor]:
        gradients = [torch.zeros_like(logits) for logits in case.mask_logits]
        rows = None
        if case.points is not None and gradients[0].dtype != case.real:
            size = (*case.images.shape, *gradients[0].shape[-2:])
            rows = torch.zeros(size, dtype=case.real)
        arguments = ctypes.byref(self._arguments(case, reversed))
        pointers = _pointers(gradients)
        self._run("emulate_losses_backward", arguments, grad_loss, grad_dice, rows, pointers)
        return gradients

    def costs(
        self, case: Case, num_targets: list[int], *, reversed: bool = False
    ) -> tuple[Tensor, Tensor]:
        total = len(case.masks)
        size = (len(case.mask_logits), case.mask_logits[0].shape[1], total)
        cost = torch.full(size, -1, dtype=case.real)
        dice = cost.clone()
        count = 0 if case.points is None else case.points.shape[1]
        labels = torch.full((total, count), float("nan"), dtype=case.real)
        arguments = ctypes.byref(self._arguments(case, reversed))
        numbers = (ctypes.c_int64 * len(num_targets))(*num_targets)
        self._run("emulate_costs", arguments, numbers, labels, cost, dice)
        return cost, dice
