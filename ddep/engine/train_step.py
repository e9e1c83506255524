"""One step of training: forward, backward, and the optimizer, unless a number went wrong."""

from __future__ import annotations

import contextlib
import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist
from detectron2.utils import comm
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel

from ddep.data.parts import cut
from ddep.modeling.normalisers import add_up, average_over_processes

# SOLVER.AMP.PRECISION
PRECISIONS = {"float16": torch.float16, "bfloat16": torch.bfloat16}


@dataclass
class StepResult:
    """What happened in a step, the same in all processes.

    Attributes:
        losses: each loss of the whole batch.
        grad_norms: L2 norm of the gradients of each optimizer's parameters, before clipping; that
            of the model's own optimizer first.
        data_time: seconds that the slowest process waited for its images.
        stop: the largest number that :meth:`TrainStep.run` got in any process.
        skipped: whether the weights were left as they are, because of a NaN or infinite number.
        skipped_in_a_row: how many of the latest steps were skipped because of their numbers, this
            one included.
        problem: what went wrong and with which images; empty if nothing did, or if only the loss
            scale was too large.
    """

    losses: dict[str, float]
    grad_norms: list[float]
    data_time: float
    stop: int
    skipped: bool = False
    skipped_in_a_row: int = 0
    problem: str = ""

    @property
    def grad_norm(self) -> float:
        """The norm of the gradients of the model's own optimizer."""
        return self.grad_norms[0]


class TrainStep:
    """Trains a model on one batch after the other.

    A batch may go through the model in parts, and over several processes: gradients and losses are
    those of the whole batch in one process, up to rounding.

    There may be several optimizers, each with parameters of its own, such as those of
    discriminators. One backward pass computes all gradients. The norm of each optimizer's gradients
    is limited by itself: with a common norm, the size of a discriminator's gradients would change
    how far the model moves. But a number that is not finite anywhere skips the step of all, so that
    they stay at the same step.

    Attributes:
        model: what is trained, wrapped for several processes if there are.
        data_loader: yields this process's batches.
        optimizer: the model's own.
        more_optimizers: the others.
        last: what happened in the latest step; None before the first.
    """

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[list[dict[str, Any]]],
        optimizer: torch.optim.Optimizer,
        *,
        more_optimizers: Sequence[torch.optim.Optimizer] = (),
        normalisers: Callable[[list[dict[str, Any]]], dict[str, float]] | None = None,
        precision: torch.dtype | None = None,
        parts: int = 1,
        max_grad_norm: float = math.inf,
    ) -> None:
        """
        Args:
            model: maps a batch to a dict of losses; maybe in a DistributedDataParallel.
            data_loader: endless.
            optimizer: of the model's parameters, or of a part of them.
            more_optimizers: of other parameters in ``model``; none may be in two optimizers.
            normalisers: counts what the losses of a batch are averaged over, by name; the model is
                then called with the totals as ``normalisers``, see
                :mod:`ddep.modeling.normalisers`. None: the model's losses are means over the images
                that it is called with, and each image counts the same.
            precision: what autocast computes in during the forward pass; None is float32 alone.
            parts: how many parts a batch is cut into.
            max_grad_norm: gradients of an optimizer with a larger norm are scaled down to it.
        """
        model.train()
        self.model = model
        self.data_loader = data_loader
        self.optimizer = optimizer
        self.more_optimizers = tuple(more_optimizers)
        self.precision = precision
        self.parts = parts
        self.max_grad_norm = max_grad_norm
        self.last: StepResult | None = None
        self._normalisers = normalisers
        self._module = model.module if isinstance(model, DistributedDataParallel) else model
        self._device = next(self._module.parameters()).device
        # float16 has too few exponents for small gradients.
        scales = precision is torch.float16
        self._scaler = torch.amp.GradScaler(self._device.type, enabled=scales)
        self._norms = [m for m in self._module.modules() if isinstance(m, _BatchNorm)]
        self._batches: Iterator[list[dict[str, Any]]] | None = None

    def start_loading(self) -> None:
        """Start the workers of the loader, which otherwise the first step does."""
        if self._batches is None:
            self._batches = iter(self.data_loader)

    def run(self, stop: int = 0, held: Iterable[nn.Parameter] = ()) -> StepResult:
        """Do one step.

        If the loss or a gradient is NaN or infinite in any process, none changes its weights.

        Args:
            stop: a number that is not 0 if this process wants training to stop.
            held: parameters that the step leaves as they are, with their state in the optimizer.
                Their gradients count nowhere.
        """
        self.start_loading()
        start = time.perf_counter()
        batch = next(self._batches)
        data_time = time.perf_counter() - start
        # A forward pass changes them before its loss is known.
        statistics = [
            (b, b.clone()) for norm in self._norms if norm.training for b in norm.buffers()
        ]
        losses = self._backward(batch)
        # Computed all the same: DistributedDataParallel waits for the gradient of each parameter.
        for parameter in held:
            parameter.grad = None
        for optimizer in self._optimizers:
            self._scaler.unscale_(optimizer)
        norms = [_grad_norm(optimizer) for optimizer in self._optimizers]
        result, bad_processes = self._share(losses, norms, data_time, stop)
        if bad_processes:
            for buffer, before in statistics:
                buffer.copy_(before)
            result.problem = _explain(result, batch, bad_processes)
        result.skipped = not all(map(math.isfinite, result.grad_norms)) or bool(bad_processes)
        if not result.skipped:
            for optimizer, norm, number in zip(
                self._optimizers, norms, result.grad_norms, strict=True
            ):
                if number > self.max_grad_norm:
                    nn.utils.clip_grads_with_norm_(_parameters(optimizer), self.max_grad_norm, norm)
                self._scaler.step(optimizer)
        self._scaler.update()
        if bad_processes:
            result.skipped_in_a_row = 1 + (self.last.skipped_in_a_row if self.last else 0)
        self.last = result
        return result

    @property
    def _optimizers(self) -> tuple[torch.optim.Optimizer, ...]:
        return self.optimizer, *self.more_optimizers

    def _backward(self, batch: list[dict[str, Any]]) -> dict[str, Tensor]:
        """Leave gradients in the parameters; the losses, of which processes have a mean."""
        parts = cut(batch, self.parts)
        arguments = {}
        if self._normalisers is not None:
            counts = add_up(self._normalisers(part) for part in parts)
            arguments["normalisers"] = average_over_processes(counts, self._device)
        for optimizer in self._optimizers:
            optimizer.zero_grad(set_to_none=True)
        total: dict[str, Tensor] = {}
        for part in parts:
            is_last = part is parts[-1]
            with contextlib.nullcontext() if is_last else self._without_synchronisation():
                losses = self._losses(part, arguments)
                if self._normalisers is None:
                    losses = {name: loss / len(parts) for name, loss in losses.items()}
                self._scaler.scale(sum(losses.values())).backward()
            for name, loss in losses.items():
                total[name] = total.get(name, 0) + loss.detach().double()
        return total

    def _losses(
        self, part: list[dict[str, Any]], arguments: dict[str, dict[str, Tensor]]
    ) -> dict[str, Tensor]:
        try:
            with self._autocast():
                return self.model(part, **arguments)
        except FloatingPointError:
            # detectron2's region proposals refuse NaN and infinite numbers before there is a loss.
            # Other processes would wait for this one's gradients.
            if comm.get_world_size() > 1:
                raise
            trained = (p for optimizer in self._optimizers for p in _parameters(optimizer))
            return {"loss": math.nan * sum(parameter.sum() for parameter in trained)}

    def _autocast(self) -> contextlib.AbstractContextManager:
        if self.precision is None:
            return contextlib.nullcontext()
        return torch.autocast(self._device.type, dtype=self.precision)

    def _without_synchronisation(self) -> contextlib.AbstractContextManager:
        if isinstance(self.model, DistributedDataParallel):
            return self.model.no_sync()
        return contextlib.nullcontext()

    def _share(
        self, losses: dict[str, Tensor], norms: list[Tensor], data_time: float, stop: int
    ) -> tuple[StepResult, list[int]]:
        """What all processes found, and the processes whose batch must not change the weights."""
        numbers = torch.stack([*losses.values(), *(norm.double() for norm in norms)])
        mine = torch.cat([numbers, numbers.new_tensor([data_time, stop])])
        gathered = [mine]
        if comm.get_world_size() > 1:
            gathered = [torch.empty_like(mine) for _ in range(comm.get_world_size())]
            dist.all_gather(gathered, mine)
        # The one place where the host waits for the device.
        table = torch.stack(gathered).cpu()
        of_losses, others = table[:, : len(losses)], table[:, len(losses) :]
        means = of_losses.mean(dim=0).tolist()
        *largest, data_time, stop = others.max(dim=0).values.tolist()
        bad = (~of_losses.isfinite().all(dim=1)).nonzero().flatten().tolist()
        if not bad and not all(map(math.isfinite, largest)) and not self._can_scale_down():
            bad = list(range(len(table)))
        found = dict(zip(losses, means, strict=True))
        return StepResult(found, largest, data_time, int(stop)), bad

    def _can_scale_down(self) -> bool:
        """Whether gradients that overflow may do so because of the loss scale only."""
        return self._scaler.get_scale() > 1

    def state_dict(self) -> dict[str, Any]:
        """Of the optimizers, and of the loss scaling if there is."""
        state: dict[str, Any] = {"optimizer": self.optimizer.state_dict()}
        if self.more_optimizers:
            state["more_optimizers"] = [o.state_dict() for o in self.more_optimizers]
        if self._scaler.is_enabled():
            state["grad_scaler"] = self._scaler.state_dict()
        return state

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore :meth:`state_dict`; the loss scaling stays as it is if there was none.

        Raises:
            ValueError: the state is of optimizers of other parameters.
        """
        others = state.get("more_optimizers", [])
        if len(others) != len(self.more_optimizers):
            raise ValueError(f"its optimizers were {1 + len(others)}, not {len(self._optimizers)}")
        for optimizer, saved in zip(self._optimizers, (state["optimizer"], *others), strict=True):
            optimizer.load_state_dict(saved)
        if self._scaler.is_enabled() and state.get("grad_scaler"):
            self._scaler.load_state_dict(state["grad_scaler"])


def _parameters(optimizer: torch.optim.Optimizer) -> list[nn.Parameter]:
    return [p for group in optimizer.param_groups for p in group["params"]]


def _grad_norm(optimizer: torch.optim.Optimizer) -> Tensor:
    return nn.utils.get_total_norm([p.grad for p in _parameters(optimizer) if p.grad is not None])


def _explain(
    result: StepResult, batch: Sequence[dict[str, Any]], bad_processes: Sequence[int]
) -> str:
    """Name the numbers that went wrong, and the images of the processes where they did."""
    mine = [str(inputs.get("file_name", "an image without file_name")) for inputs in batch]
    of_processes = comm.all_gather(mine)
    files = [file for process in bad_processes for file in of_processes[process]]
    wrong = {name: loss for name, loss in result.losses.items() if not math.isfinite(loss)}
    norm = next((n for n in result.grad_norms if not math.isfinite(n)), result.grad_norm)
    numbers = wrong or {"the norm of the gradients": norm}
    found = ", ".join(f"{name} is {number}" for name, number in numbers.items())
    return f"{found}; the images: {', '.join(files)}"
