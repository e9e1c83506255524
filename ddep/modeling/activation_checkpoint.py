"""Activation checkpointing: less memory for more computation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint


def checkpointed(function: Callable[..., Tensor], *arguments: Any, recompute: bool) -> Tensor:
    """Call ``function``; with ``recompute``, keep only its arguments for the backward pass.

    Everything else is computed again there, with the same random numbers (Chen et al., 2016, arXiv
    1604.06174).
    """
    if recompute and torch.is_grad_enabled():
        return checkpoint(function, *arguments, use_reentrant=False)
    return function(*arguments)
