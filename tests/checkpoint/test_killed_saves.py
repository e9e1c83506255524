"""Kill a process with SIGKILL at each step of a save in turn."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from ddep.checkpoint import Checkpointer
from ddep.checkpoint.checksum import _HashedFile, verify_checksum

pytestmark = pytest.mark.slow

# The calls that change the disk. Only the writes of tensors count; the others are many and small.
_STEPS = [(os, "replace"), (os, "remove"), (os, "fsync"), (_HashedFile, "write")]


class Iteration:
    """A trainer's state."""

    def __init__(self, value: int) -> None:
        self.value = value

    def state_dict(self) -> dict[str, int]:
        return {"iteration": self.value}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.value = state["iteration"]


def save(folder: Path, name: str, value: int) -> None:
    model = nn.Linear(50, 50)
    nn.init.constant_(model.weight, value)
    Checkpointer(model, str(folder), trainer=Iteration(value)).save(name)


def resume(folder: Path) -> int:
    """The value in the checkpoint that is found; all its parts must come from one save."""
    model, state = nn.Linear(50, 50), Iteration(-1)
    Checkpointer(model, str(folder), trainer=state).resume_or_load("", resume=True)
    assert torch.equal(model.weight, torch.full((50, 50), float(state.value)))
    return state.value


def killed_at(step: int, work: Callable[[], None]) -> bool:
    """Whether a process that does ``work`` reaches this step, where it is killed."""
    pid = os.fork()
    if pid == 0:
        count = 0

        def counting(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
            def call(*args: Any, **kwargs: Any) -> Any:
                nonlocal count
                if name != "write" or len(args[1]) > 1000:
                    if count == step:
                        os.kill(os.getpid(), signal.SIGKILL)
                    count += 1
                return function(*args, **kwargs)

            return call

        for owner, name in _STEPS:
            setattr(owner, name, counting(name, getattr(owner, name)))
        status = 1
        try:
            work()
            status = 0
        finally:
            os._exit(status)
    status = os.waitpid(pid, 0)[1]
    if os.WIFSIGNALED(status):
        assert os.WTERMSIG(status) == signal.SIGKILL
        return True
    assert os.WEXITSTATUS(status) == 0
    return False


@pytest.mark.parametrize("name", ["model_0000002", "model_0000001"])
def test_a_kill_leaves_the_old_or_the_new_checkpoint(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    name: str,
) -> None:
    """The new checkpoint has another name than the old one, or the same."""
    # Syncing takes time and matters only for power cuts.
    monkeypatch.setattr(os, "fsync", lambda _: None)
    found = []
    step = 0
    while True:
        folder = tmp_path / str(step)
        folder.mkdir()
        save(folder, "model_0000001", 1)
        was_killed = killed_at(step, lambda folder=folder: save(folder, name, 2))
        found.append(resume(folder))
        for path in folder.glob("*.pth"):
            verify_checksum(str(path))  # if there is one, it must be this file's
        save(folder, "model_0000003", 3)
        assert not list(folder.glob(".*")), "leftovers"
        assert resume(folder) == 3
        if not was_killed:
            break
        step += 1
    # The file that last_checkpoint names was always valid.
    assert not [r for r in caplog.records if r.name == "ddep.checkpoint.fallback"]
    # One write, and for each of three files a sync, a rename and a sync of the folder.
    assert step >= 10
    assert found == sorted(found)
    assert {found[0], found[-1]} == {1, 2}
