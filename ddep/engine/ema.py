"""An exponential moving average of the weights."""

from __future__ import annotations

import contextlib
import logging
import os
from collections.abc import Callable, Iterator
from typing import Any

import torch
from detectron2.config import CfgNode
from torch import Tensor, nn

from ddep.errors import UserError

logger = logging.getLogger(__name__)


class WeightAverage:
    """The exponential moving average of a model's trained parameters and floating-point buffers.

    After the n-th step it is ``d * average + (1 - d) * weights`` with
    ``d = min(decay, (1 + n) / (10 + n))``, so that the random start is soon forgotten. Frozen
    parameters are not copied.
    """

    def __init__(self, model: nn.Module, decay: float) -> None:
        """
        Args:
            model: its tensors are read in place at each update.
            decay: in [0, 1), SOLVER.EMA.DECAY.
        """
        self.decay = decay
        self.updates = 0
        self._tensors = _changing_tensors(model)
        self._averages = {name: tensor.detach().clone() for name, tensor in self._tensors.items()}

    @torch.no_grad()
    def restart(self) -> None:
        """Start over from the model's current weights."""
        self.updates = 0
        for name, average in self._averages.items():
            average.copy_(self._tensors[name])

    @torch.no_grad()
    def update(self) -> None:
        """Include the weights after an optimizer step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        averages = list(self._averages.values())
        torch._foreach_lerp_(averages, list(self._tensors.values()), 1 - decay)

    @contextlib.contextmanager
    def in_place(self) -> Iterator[None]:
        """Inside the ``with`` block, the model has the averaged weights."""
        self._swap()
        try:
            yield
        finally:
            self._swap()

    def _swap(self) -> None:
        for name, average in self._averages.items():
            tensor = self._tensors[name]
            tensor.data, average.data = average.data, tensor.data

    def state_dict(self) -> dict[str, Any]:
        """``model``: the averages by tensor name; ``updates``: their number."""
        return {"model": dict(self._averages), "updates": self.updates}

    @torch.no_grad()
    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`.

        Raises:
            UserError: the state belongs to a run that trained other parameters.
        """
        different = sorted(state["model"].keys() ^ self._averages.keys())
        if different:
            raise UserError(
                "the averaged weights in the checkpoint are from a run that trained other "
                f"parameters ({different[0]}); use the config that the run was started with"
            )
        self.updates = state["updates"]
        for name, average in self._averages.items():
            average.copy_(state["model"][name])


def _changing_tensors(model: nn.Module) -> dict[str, Tensor]:
    """The trained parameters and the saved floating-point buffers, by name."""
    saved = model.state_dict(keep_vars=True)
    return {
        name: tensor
        for name, tensor in saved.items()
        if tensor.is_floating_point()
        and (tensor.requires_grad or not isinstance(tensor, nn.Parameter))
    }


def evaluate_average(
    test: Callable[[CfgNode, nn.Module], dict[str, Any]],
    cfg: CfgNode,
    model: nn.Module,
    average: WeightAverage,
) -> dict[str, Any]:
    """Call ``test`` with the averaged weights in ``model``; files go to OUTPUT_DIR/ema."""
    logger.info("Evaluating the moving average of the weights")
    with average.in_place():
        return test(with_output_in(cfg, "ema"), model)


def with_output_in(cfg: CfgNode, folder: str) -> CfgNode:
    """A frozen copy of ``cfg`` whose OUTPUT_DIR is ``folder`` inside the original one."""
    cfg = cfg.clone()
    cfg.defrost()
    cfg.OUTPUT_DIR = os.path.join(cfg.OUTPUT_DIR, folder)
    cfg.freeze()
    return cfg
