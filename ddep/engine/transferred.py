"""The parameters that a run took from MODEL.WEIGHTS, which may train otherwise than new ones."""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection
from typing import Any

from torch import nn

from ddep.errors import UserError

logger = logging.getLogger(__name__)


class TransferredParameters:
    """Which trained parameters were taken from MODEL.WEIGHTS when the run started.

    The names are saved: a resumed run does not read MODEL.WEIGHTS again, and its optimizer needs
    the same groups.

    Attributes:
        parameters: those parameters; empty until they are known.
    """

    def __init__(
        self, model: nn.Module, new_only_iters: int, on_change: Callable[[Collection[str]], None]
    ) -> None:
        """
        Args:
            model: not wrapped in DistributedDataParallel.
            new_only_iters: iterations in which only other parameters train.
            on_change: called with the names as soon as they are known, before the optimizer has a
                state.
        """
        self.parameters: list[nn.Parameter] = []
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._names: list[str] = []
        self._new_only_iters = new_only_iters
        self._on_change = on_change

    def start(self, loaded: Collection[str]) -> None:
        """Start a run whose weights called ``loaded`` are from MODEL.WEIGHTS.

        Raises:
            UserError: only new parameters are to train at first, and there are none.
        """
        loaded = set(loaded)
        self._set([name for name in self._trained if name in loaded])
        number, total = len(self._names), len(self._trained)
        if self._new_only_iters and number == total:
            raise UserError(
                f"SOLVER.NEW_ONLY_ITERS is {self._new_only_iters}, but all {total} trained "
                "parameters are in MODEL.WEIGHTS and none is new; set it to 0"
            )
        period = f" and stay as they are for {self._new_only_iters} iterations"
        logger.info(
            f"{number} of {total} trained parameters are from MODEL.WEIGHTS"
            f"{period if self._new_only_iters else ''}"
        )

    def held_in(self, iteration: int) -> list[nn.Parameter]:
        """The parameters that iteration ``iteration``, counted from 0, leaves as they are."""
        return self.parameters if iteration < self._new_only_iters else []

    def state_dict(self) -> dict[str, Any]:
        """``names``: of the parameters."""
        return {"names": self._names}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`; before the optimizer's state is loaded.

        Raises:
            UserError: the run trained other parameters.
        """
        unknown = [name for name in state["names"] if name not in self._trained]
        if unknown:
            raise UserError(
                f"the run trained other parameters ({unknown[0]}); --resume needs the config that "
                "the run was started with"
            )
        self._set(state["names"])

    def _set(self, names: list[str]) -> None:
        self._names = names
        self.parameters = [self._trained[name] for name in names]
        self._on_change(names)
