"""A run's state is saved and restored, in one process and in several."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from torch import Tensor, nn

from ddep.checkpoint import Checkpointer
from ddep.engine.resume import RunCheckpoints, TrainingState
from ddep.engine.train_step import TrainStep
from ddep.errors import UserError


class Fit(nn.Module):
    """Its loss depends on the batch and on random numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(2))

    def forward(self, batch: list[Tensor]) -> dict[str, Tensor]:
        return {"loss": (batch[0] * torch.rand(()) * self.weight).square().sum()}


class Loader:
    """Yields 1, 2, 3, ..."""

    position = 0

    def __iter__(self) -> Loader:
        return self

    def __next__(self) -> list[Tensor]:
        self.position += 1
        return [torch.tensor(float(self.position))]

    def state_dict(self) -> dict[str, Any]:
        return {"position": self.position}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.position = state["position"]


class Counter(HookBase):
    """A hook with a state."""

    count = 0

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count = state["count"]


class Run:
    """What a checkpoint knows about a run of at most 4 iterations."""

    def __init__(self, folder: Path, optimizer: str = "AdamW") -> None:
        self.model = Fit()
        self.loader, self.counter = Loader(), Counter()
        made = getattr(torch.optim, optimizer)(self.model.parameters(), lr=0.1)
        self.step = TrainStep(self.model, self.loader, made)
        self.state = TrainingState(self.step, [HookBase(), self.counter])
        checkpointer = Checkpointer(self.model, str(folder))
        self.checkpoints = RunCheckpoints(checkpointer, self.state, None, max_iter=4)

    def train(self, iterations: int) -> None:
        self.state.restore_random_numbers()
        for _ in range(iterations):
            self.step.run()
            self.counter.count += 1
            self.state.complete_iteration()


def test_a_resumed_run_continues_with_everything(tmp_path: Path) -> None:
    whole = Run(tmp_path)
    whole.train(2)
    whole.state.best = {"value": 3.0, "completed": 2}
    assert whole.checkpoints.save() == str(tmp_path / "model_0000001.pth")
    whole.train(2)
    torch.manual_seed(99)
    resumed = Run(tmp_path)
    assert resumed.checkpoints.resume()
    assert (resumed.state.completed, resumed.loader.position, resumed.counter.count) == (2, 2, 2)
    assert resumed.state.best == {"value": 3.0, "completed": 2}
    assert not resumed.checkpoints.is_finished
    resumed.train(2)
    assert torch.equal(resumed.model.weight, whole.model.weight)
    assert resumed.checkpoints.is_finished
    assert resumed.checkpoints.save() == str(tmp_path / "model_final.pth")


def test_without_a_checkpoint_nothing_is_resumed(tmp_path: Path) -> None:
    run = Run(tmp_path)
    assert run.checkpoints.resume() is False
    assert run.state.completed == 0


def test_each_process_gets_its_own_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = Run(tmp_path), Run(tmp_path)
    first.train(1)
    second.loader.position = 7
    second.train(1)
    expected = torch.rand(3)  # after the second process's last iteration
    other = second.state.state_dict()["processes"][0]
    monkeypatch.setattr(comm, "all_gather", lambda own: [own, other])
    saved = first.state.state_dict()
    monkeypatch.setattr(comm, "get_world_size", lambda: 2)
    for rank, position in ((0, 1), (1, 8)):
        monkeypatch.setattr(comm, "get_rank", lambda rank=rank: rank)
        resumed = Run(tmp_path)
        resumed.state.load_state_dict(saved)
        assert resumed.loader.position == position
        resumed.state.restore_random_numbers()
        assert torch.equal(torch.rand(3), expected) == (rank == 1)


@pytest.mark.parametrize(
    ("processes", "position", "message"),
    [(2, 1, "2 processes, this run has 1"), (0, 0, "does not say which images come next")],
)
def test_another_number_of_processes_is_a_warning(
    tmp_path: Path, processes: int, position: int, message: str, caplog: pytest.LogCaptureFixture
) -> None:
    run = Run(tmp_path)
    run.train(1)
    saved = run.state.state_dict()
    saved["processes"] *= processes
    resumed = Run(tmp_path)
    with caplog.at_level(logging.WARNING, logger="ddep"):
        resumed.state.load_state_dict(saved)
    assert (resumed.state.completed, resumed.loader.position) == (1, position)
    assert message in caplog.text
    # The random numbers stay those of this process.
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    resumed.state.restore_random_numbers()
    assert torch.equal(torch.rand(3), expected)


def test_hooks_without_a_saved_state_keep_theirs(tmp_path: Path) -> None:
    run = Run(tmp_path)
    saved = run.state.state_dict()
    assert saved["hooks"] == {"Counter": {"count": 0}}
    saved["hooks"] = {"HookOfAnotherVersion": {"count": 5}}
    run.counter.count = 3
    run.state.load_state_dict(saved)
    assert run.counter.count == 3


def test_a_checkpoint_of_another_optimizer_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.train(1)
    path = run.checkpoints.save()
    with pytest.raises(UserError, match=f"{path}: the run had another SOLVER.OPTIMIZER") as error:
        Run(tmp_path, optimizer="SGD").checkpoints.resume()
    assert "\n" not in str(error.value)


def test_a_checkpoint_of_other_parameters_is_named(tmp_path: Path) -> None:
    run = Run(tmp_path)
    run.train(1)
    path = run.checkpoints.save()
    other = Run(tmp_path)
    other.step.optimizer.add_param_group({"params": [nn.Parameter(torch.ones(1))]})
    with pytest.raises(UserError, match=f"{path}: the run trained other parameters .*--resume"):
        other.checkpoints.resume()
