from __future__ import annotations

import logging
import math
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import hooks
from detectron2.engine.train_loop import TrainerBase
from torch import nn

from ddep.checkpoint import Checkpointer, read_checkpoint
from ddep.engine.checkpoint_hooks import BestCheckpoint, PeriodicCheckpoints, check_checkpoints
from ddep.engine.resume import RunCheckpoints, TrainingState
from ddep.errors import UserError
from ddep.evaluation import MEASURES
from ddep.tasks import load_config
from tests.engine.tiny_runs import write_config


class Killed(Exception):
    """Stands for kill -9: nothing is done after it."""


class NoStep:
    """A training step without a state."""

    def __init__(self) -> None:
        self.optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=1.0)
        self.data_loader = self

    def state_dict(self) -> dict[str, Any]:
        return {"optimizer": self.optimizer.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        pass


class CountingTrainer(TrainerBase):
    """Adds one to its weight in each step; its evaluations come from a list."""

    def __init__(
        self,
        folder: Path,
        *,
        period: int,
        keep: int = 0,
        values: Sequence[float] = (),
        metric: str = "panoptic_seg/PQ",
        mode: str = "max",
    ) -> None:
        super().__init__()
        self.model = nn.Linear(1, 1, bias=False)
        nn.init.zeros_(self.model.weight)
        self.checkpointer = Checkpointer(self.model, str(folder))
        self.state = TrainingState(NoStep(), self._hooks)
        self.checkpoints = RunCheckpoints(self.checkpointer, self.state, None, max_iter=0)
        self.values = values
        self.evaluated: list[int] = []  # the weight at each evaluation
        self.register_hooks(
            [
                PeriodicCheckpoints(self.checkpoints, [period], keep),
                hooks.EvalHook(2, self.evaluate),
                BestCheckpoint(self.checkpoints, metric, mode, 2, self.evaluate)
                if values
                else None,
            ]
        )

    def evaluate(self) -> dict[str, Any]:
        self.evaluated.append(int(self.model.weight))
        value = self.values[(self.evaluated[-1] - 1) // 2] if self.values else 0.0
        results = {"panoptic_seg": {"PQ": value, "PQ-road": 1.0}, "sem_seg": {"mIoU": 2.0}}
        self._last_eval_results = results
        return results

    def run_step(self) -> None:
        with torch.no_grad():
            self.model.weight += 1
        self.state.complete_iteration()

    def go(self, iterations: int, resume: bool = False) -> None:
        self.checkpoints.max_iter = iterations
        if resume:
            assert self.checkpoints.resume()
        self.train(self.state.completed, iterations)


def names(folder: Path) -> list[str]:
    assert {path.name for path in folder.glob("*.sha256")} == {
        f"{path.name}.sha256" for path in folder.glob("*.pth")
    }
    return sorted(path.stem for path in folder.glob("*.pth"))


def weight(folder: Path, name: str) -> float:
    return read_checkpoint(str(folder / f"{name}.pth"))["model"]["weight"].item()


def test_names_are_those_of_detectron2(tmp_path: Path) -> None:
    CountingTrainer(tmp_path, period=3).go(7)
    assert names(tmp_path) == ["model_0000002", "model_0000005", "model_final"]
    assert [weight(tmp_path, name) for name in names(tmp_path)] == [3, 6, 7]
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"
    assert read_checkpoint(str(tmp_path / "model_0000002.pth"))["iteration"] == 2


def test_the_latest_are_kept_with_the_final_and_the_best(tmp_path: Path) -> None:
    others = ["model_00000.pth", "model_0000001.pth.bak", "my_model_0000000.pth"]
    for name in others:
        (tmp_path / name).touch()
    trainer = CountingTrainer(tmp_path, period=1, keep=2, values=[5, 1, 1])
    trainer.go(6)
    for name in others:
        (tmp_path / name).unlink()
    assert names(tmp_path) == ["model_0000004", "model_0000005", "model_best", "model_final"]
    assert weight(tmp_path, "model_best") == 2


def test_a_resumed_run_knows_its_own_and_leaves_those_of_a_longer_one(tmp_path: Path) -> None:
    Checkpointer(nn.Linear(1, 1), str(tmp_path)).save("model_0000050")
    CountingTrainer(tmp_path, period=1, keep=3).go(3)
    os.remove(tmp_path / "model_final.pth")
    os.remove(tmp_path / "model_final.pth.sha256")
    (tmp_path / "last_checkpoint").write_text("model_0000002.pth")
    CountingTrainer(tmp_path, period=1, keep=2).go(5, resume=True)
    assert names(tmp_path) == ["model_0000003", "model_0000004", "model_0000050", "model_final"]


def test_nothing_is_deleted_before_the_new_one_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer = CountingTrainer(tmp_path, period=1, keep=1)
    save = trainer.checkpointer.save

    def full(name: str, **kwargs: Any) -> None:
        if name == "model_0000003":
            raise UserError("the disk is full")
        save(name, **kwargs)

    monkeypatch.setattr(trainer.checkpointer, "save", full)
    with pytest.raises(UserError, match="full"):
        trainer.go(6)
    assert names(tmp_path) == ["model_0000002"]


def test_checkpoints_that_a_kill_left_are_deleted_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(_: str) -> None:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr("ddep.engine.checkpoint_hooks.remove_checksum", die)
        with pytest.raises(Killed):
            CountingTrainer(tmp_path, period=2, keep=1).go(5)
    assert names(tmp_path) == ["model_0000001", "model_0000003"]
    CountingTrainer(tmp_path, period=2, keep=1).go(5, resume=True)
    assert names(tmp_path) == ["model_0000003", "model_final"]


def test_what_cannot_be_deleted_is_in_the_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "model_0000000.pth").mkdir()
    with caplog.at_level(logging.WARNING, logger="ddep"):
        CountingTrainer(tmp_path, period=2, keep=1).go(2)
    assert {r.getMessage() for r in caplog.records if r.name.startswith("ddep")} == {
        f"{tmp_path / 'model_0000000.pth'} cannot be deleted: Is a directory"
    }


@pytest.mark.parametrize(
    ("mode", "values", "iteration"),
    [
        ("max", [1.0, 3.0, 2.0], 3),
        ("min", [1.0, 3.0, 2.0], 1),
        ("max", [1.0, 1.0, 1.0], 1),
        ("max", [math.nan, -1.0, math.nan], 3),
        ("min", [math.nan, 5.0, -math.inf], 3),
        ("max", [1.0, 2.0, 3.0], 5),
    ],
)
def test_the_best_is_saved(tmp_path: Path, mode: str, values: list[float], iteration: int) -> None:
    CountingTrainer(tmp_path, period=10, values=values, mode=mode).go(6)
    best = read_checkpoint(str(tmp_path / "model_best.pth"))
    assert best["model"]["weight"] == iteration + 1
    assert best["best"] == {
        "value": values[iteration // 2],
        "completed": iteration + 1,
        "metric": "panoptic_seg/PQ",
        "mode": mode,
    }
    assert (tmp_path / "last_checkpoint").read_text() == "model_final.pth"


def test_nan_is_never_the_best(tmp_path: Path) -> None:
    CountingTrainer(tmp_path, period=10, values=[math.nan] * 3).go(6)
    assert names(tmp_path) == ["model_final"]


@pytest.mark.parametrize(
    ("at", "hooks_done", "evaluated"),
    [
        (2, 2, [4, 6]),
        (3, 0, [4, 6]),  # before the evaluation, which is due
        (3, 1, [4, 6]),  # before the best is saved
        (3, 2, [6]),
        (4, 2, [6]),
        (5, 0, [6]),
    ],
)
@pytest.mark.parametrize("values", [[1.0, 3.0, 2.0], [5.0, 3.0, 2.0]])
def test_a_resumed_run_knows_the_best(
    tmp_path: Path, values: list[float], at: int, hooks_done: int, evaluated: list[int]
) -> None:
    """Evaluations follow steps 2, 4 and 6; after step ``at`` the run dies between two hooks."""
    trainer = CountingTrainer(tmp_path, period=1, values=values)

    def stop() -> None:
        if trainer.iter == at:
            raise Killed

    trainer._hooks.insert(hooks_done + 1, hooks.CallbackHook(after_step=lambda _: stop()))
    with pytest.raises(Killed):
        trainer.go(6)
    resumed = CountingTrainer(tmp_path, period=1, values=values)
    resumed.go(6, resume=True)
    best = 4 if values[0] == 1 else 2
    assert weight(tmp_path, "model_best") == best
    assert resumed.state.best["completed"] == best
    if best == 2 and at == 3:
        evaluated = [4, 6]  # no file says that the evaluation after step 4 was not the best
    assert resumed.evaluated == evaluated


def test_a_longer_training_knows_the_best_of_the_first_end(tmp_path: Path) -> None:
    CountingTrainer(tmp_path, period=10, values=[1.0, 5.0]).go(4)
    CountingTrainer(tmp_path, period=10, values=[1.0, 5.0, 4.0]).go(6, resume=True)
    assert weight(tmp_path, "model_best") == 4


def test_the_best_of_another_metric_and_a_damaged_file_are_ignored(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    CountingTrainer(tmp_path, period=10, values=[5.0, 5.0]).go(4)
    trainer = CountingTrainer(
        tmp_path, period=10, values=[9.0] * 3, metric="sem_seg/mIoU", mode="min"
    )
    trainer.go(6, resume=True)
    assert weight(tmp_path, "model_best") == 4
    (tmp_path / "model_best.pth").write_bytes(b"half")
    with caplog.at_level(logging.WARNING, logger="ddep"):
        CountingTrainer(
            tmp_path, period=10, values=[9.0] * 4, metric="sem_seg/mIoU", mode="min"
        ).go(8, resume=True)
    assert weight(tmp_path, "model_best") == 6
    assert "the next evaluation counts as the best" in caplog.text


def test_another_run_in_the_folder_starts_without_a_best(tmp_path: Path) -> None:
    CountingTrainer(tmp_path, period=10, values=[5.0]).go(2)
    CountingTrainer(tmp_path, period=10, values=[1.0, 2.0]).go(4)
    assert weight(tmp_path, "model_best") == 4


def test_an_unknown_metric_is_an_error_that_names_the_known_ones(tmp_path: Path) -> None:
    trainer = CountingTrainer(tmp_path, period=10, values=[1.0], metric="panoptic_seg/pq")
    with pytest.raises(
        UserError,
        match=r"TEST.BEST_METRIC is 'panoptic_seg/pq', which .* one of panoptic_seg/PQ, sem_seg/mI",
    ):
        trainer.go(4)


def check(tmp_path: Path, tasks: dict[str, list[str]], *overrides: str) -> None:
    path = write_config(tmp_path, "config")
    measures = {name: [MEASURES[measure] for measure in tasks[name]] for name in tasks}
    check_checkpoints(load_config(path, overrides), measures)


ONE = {"a": ["sem_seg"]}
TWO = {"a": ["sem_seg"], "b": ["panoptic_seg", "segm"]}
EMA = ("SOLVER.EMA.ENABLED", "True")


@pytest.mark.parametrize(
    ("tasks", "metric", "overrides"),
    [
        (ONE, "sem_seg/mIoU", ()),
        ({"a": ["denoising"]}, "denoising/noise_mse", ()),
        ({"a": ["denoising"], "b": ["denoising"]}, "b/denoising/noise_mse", ()),
        (TWO, "b/segm/AP", ()),
        (TWO, "b/panoptic_seg/RQ_st", ()),
        (ONE, "sem_seg/IoU-road", ()),
        ({"synthia_sem_seg_all": ["sem_seg"]}, "sem_seg/mIoU16", ()),
        (ONE, "ema/sem_seg/mIoU", EMA),
        (TWO, "ema/b/panoptic_seg/PQ", EMA),
        ({}, "", ()),
    ],
)
def test_metrics_of_the_evaluation_are_accepted_and_no_others(
    tmp_path: Path, tasks: dict[str, list[str]], metric: str, overrides: tuple[str, ...]
) -> None:
    check(tmp_path, tasks, "TEST.BEST_METRIC", metric, *overrides)
    with pytest.raises(UserError, match=f"TEST.BEST_METRIC is 'x{metric}'"):
        check(tmp_path, tasks, "TEST.BEST_METRIC", f"x{metric}", *overrides)


@pytest.mark.parametrize(
    ("tasks", "overrides", "message"),
    [
        (ONE, ("SOLVER.CHECKPOINTS_TO_KEEP", "-1"), r"TO_KEEP is -1; expected 0 \(all\) or more"),
        (ONE, ("TEST.BEST_MODE", "high"), "TEST.BEST_MODE is 'high'; expected max or min"),
        (
            ONE,
            ("TEST.BEST_METRIC", "panoptic_seg/PQ"),
            "TEST.BEST_METRIC is 'panoptic_seg/PQ'; expected a name such as sem_seg/mIoU$",
        ),
        (ONE, ("TEST.BEST_METRIC", "mIoU"), "expected a name such as sem_seg/mIoU$"),
        (ONE, ("TEST.BEST_METRIC", "ema/sem_seg/mIoU"), "expected a name such as sem_seg/mIoU$"),
        (
            TWO,
            ("TEST.BEST_METRIC", "sem_seg/mIoU"),
            "such as a/sem_seg/mIoU or b/panoptic_seg/PQ or b/segm/AP$",
        ),
        (ONE, ("TEST.BEST_METRIC", "sem_seg/"), "is 'sem_seg/'; expected one of sem_seg/mIoU"),
        (
            ONE,
            ("TEST.BEST_METRIC", "sem_seg/miou"),
            "is 'sem_seg/miou'; expected one of "
            "sem_seg/mIoU, sem_seg/fwIoU, sem_seg/mACC, sem_seg/pACC$",
        ),
        (
            {"synthia_sem_seg_all": ["sem_seg"]},
            ("TEST.BEST_METRIC", "sem_seg/mIoU15"),
            "sem_seg/pACC, sem_seg/mIoU16, sem_seg/mIoU13$",
        ),
        (
            {},
            ("TEST.BEST_METRIC", "sem_seg/mIoU"),
            "TEST.BEST_METRIC is 'sem_seg/mIoU', but DATASETS.TEST is empty",
        ),
    ],
)
def test_impossible_settings_are_refused_before_training(
    tmp_path: Path, tasks: dict[str, list[str]], overrides: tuple[str, ...], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        check(tmp_path, tasks, *overrides)
