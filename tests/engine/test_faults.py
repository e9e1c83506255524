"""Training meets numbers that go wrong, and signals."""

from __future__ import annotations

import contextlib
import logging
import math
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.engine import HookBase

from ddep.checkpoint import read_checkpoint
from ddep.engine import Trainer, main, setup
from ddep.errors import Stopped, UserError
from tests.checkpoint.full_disk import full_disk
from tests.engine.tiny_runs import (
    arguments,
    classification_config,
    denoising_config,
    detection_config,
    detr_config,
    metrics,
    one_thread,
    per_pixel_config,
    shapes_config,
    shapes_root,
    trackformer_config,
    video_config,
    write_images,
)

pytestmark = pytest.mark.slow

__all__ = ["one_thread"]


@pytest.fixture
def config(tmp_path: Path) -> str:
    return denoising_config(tmp_path, write_images(tmp_path / "images", 5))


class Poison(HookBase):
    """Makes an image infinite, or a loss NaN, in some iterations."""

    def __init__(self, kind: str, iterations: range) -> None:
        self.kind = kind
        self.iterations = iterations
        self.weights: dict[int, torch.Tensor] = {}

    def before_train(self) -> None:
        model = self.trainer.model
        if self.kind == "image":
            model.register_forward_pre_hook(self._poison_image)
        else:
            model.register_forward_hook(self._poison_loss)

    def before_step(self) -> None:
        parameters = self.trainer.model.parameters()
        self.weights[self.trainer.iter] = torch.cat([p.detach().flatten() for p in parameters])

    def _poison_image(self, _: Any, inputs: tuple[list[dict[str, Any]]]) -> None:
        if self.trainer.iter in self.iterations and self.trainer.model.training:
            image = inputs[0][0]["image"]
            frames = image if isinstance(image, list) else [image]
            frames = [frame.float() * math.inf for frame in frames]
            inputs[0][0]["image"] = frames if isinstance(image, list) else frames[0]

    def _poison_loss(self, _: Any, __: Any, losses: dict[str, torch.Tensor]) -> Any:
        if self.trainer.iter in self.iterations and self.trainer.model.training:
            return {name: loss * math.nan for name, loss in losses.items()}
        return None


def poisoned(config: str, poison: Poison, *words: object) -> Trainer:
    cfg = setup(arguments("--config-file", config, "DATASETS.TEST", "()", *words))
    trainer = Trainer(cfg)
    trainer.register_hooks([poison])
    trainer.resume_or_load(resume=False)
    return trainer


@pytest.mark.parametrize("kind", ["image", "loss"])
def test_a_poisoned_batch_does_not_reach_the_weights(
    config: str, kind: str, tmp_path: Path
) -> None:
    poison = Poison(kind, range(2, 3))
    trainer = poisoned(config, poison, "SOLVER.EMA.ENABLED", True)
    trainer.train()
    changed = [
        not torch.equal(poison.weights[i], poison.weights[i + 1])
        for i in range(len(poison.weights) - 1)
    ]
    assert changed == [True, True, False, True, True]
    assert trainer.average.updates == 5
    log = (tmp_path / "pretrain" / "log.txt").read_text()
    [skipped] = re.findall(r"WARNING: (iteration .*)", log)
    assert re.fullmatch(
        r"iteration 3 is skipped \(1 in a row; SOLVER\.MAX_SKIPPED_STEPS: 10\): loss_denoise is "
        r"(nan|inf); the images: \S+/images/\d\.png, \S+/images/\d\.png",
        skipped,
    )
    assert all(math.isfinite(line["total_loss"]) for line in metrics(tmp_path / "pretrain"))


@pytest.mark.parametrize("kind", ["image", "loss"])
@pytest.mark.parametrize(
    ("make_config", "loss"),
    [
        (shapes_config, "loss_ce"),
        (per_pixel_config, "loss_sem_seg"),
        (classification_config, "loss_classification"),
        (detection_config, "loss(_mask)?"),
        (video_config, "loss_ce"),
        (trackformer_config, "loss_ce"),
        (detr_config, "loss_ce"),
    ],
)
def test_other_models_survive_a_poisoned_batch(
    make_config: Callable[[Path], str], loss: str, kind: str, tmp_path: Path
) -> None:
    """Here the costs of a matching are not finite either, and proposals are refused."""
    with shapes_root(tmp_path):
        poison = Poison(kind, range(1, 2))
        trainer = poisoned(make_config(tmp_path), poison, "SOLVER.MAX_ITER", 4)
        trainer.train()
    assert torch.equal(poison.weights[1], poison.weights[2])
    assert not torch.equal(poison.weights[2], poison.weights[3])
    log = Path(trainer.cfg.OUTPUT_DIR, "log.txt").read_text()
    assert re.search(rf"iteration 2 is skipped .*{loss} is nan.*; the images: .*\.png, ", log), log


def test_too_many_in_a_row_stop_training_with_a_good_checkpoint(
    config: str, tmp_path: Path
) -> None:
    poison = Poison("loss", range(2, 100))
    trainer = poisoned(config, poison, "SOLVER.MAX_SKIPPED_STEPS", 3)
    message = (
        r"3 steps in a row, up to iteration 5, .* NaN or infinite; "
        r".*pretrain/model_0000004\.pth .*SOLVER\.BASE_LR"
    )
    with pytest.raises(FloatingPointError, match=message):
        trainer.train()
    folder = tmp_path / "pretrain"
    assert (folder / "last_checkpoint").read_text() == "model_0000004.pth"
    saved = read_checkpoint(str(folder / "model_0000004.pth"))
    names = [name for name, _ in trainer.model.named_parameters()]
    weights = torch.cat([saved["model"][name].flatten() for name in names])
    assert torch.equal(weights, poison.weights[2])
    assert weights.isfinite().all()
    # A resumed run continues after them.
    main(arguments("--config-file", config, "--resume", "DATASETS.TEST", "()"))
    assert read_checkpoint(str(folder / "model_final.pth"))["iteration"] == 5


class Signal(HookBase):
    """Sends this process a signal in the middle of an iteration."""

    def __init__(self, number: int, iteration: int) -> None:
        self.number = number
        self.iteration = iteration

    def before_step(self) -> None:
        if self.trainer.iter == self.iteration:
            os.kill(os.getpid(), self.number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_and_stops_and_the_rest_is_as_if_it_had_not_come(
    config: str, number: int, tmp_path: Path
) -> None:
    words = ["DATASETS.TEST", "()", "OUTPUT_DIR"]
    main(arguments("--config-file", config, *words, tmp_path / "whole"))
    trainer = Trainer(setup(arguments("--config-file", config, *words, tmp_path / "stopped")))
    trainer.register_hooks([Signal(number, 2)])
    trainer.resume_or_load(resume=False)
    name = signal.Signals(number).name
    message = rf"stopped by {name} after iteration 3 of 6; saved .*model_0000002\.pth; --resume"
    with pytest.raises(Stopped, match=message) as caught:
        trainer.train()
    assert caught.value.signum == number
    log = (tmp_path / "stopped" / "log.txt").read_text()
    assert f"{name}: training stops after this iteration and saves a checkpoint" in log
    assert "Traceback" not in log
    main(arguments("--config-file", config, "--resume", *words, tmp_path / "stopped"))
    first, second = (
        read_checkpoint(str(tmp_path / folder / "model_final.pth"))["model"]
        for folder in ("whole", "stopped")
    )
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("SOLVER.ACCUMULATION_STEPS", 0, r"SOLVER\.ACCUMULATION_STEPS is 0; expected at least 1"),
        ("SOLVER.MAX_SKIPPED_STEPS", 0, r"SOLVER\.MAX_SKIPPED_STEPS is 0; expected at least 1"),
        ("SOLVER.AMP.PRECISION", "fp8", r"PRECISION is 'fp8'; expected float16 or bfloat16"),
        ("SOLVER.EMA.DECAY", 1.0, r"SOLVER\.EMA\.DECAY is 1\.0; expected a number from 0 to"),
        ("SOLVER.ACCUMULATION_STEPS", 4, r"SOLVER\.IMS_PER_BATCH is 2; expected a multiple of 4"),
    ],
)
def test_impossible_values_are_named(config: str, key: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        setup(arguments("--config-file", config, key, value))


def test_bfloat16_trains_on_the_cpu(config: str, tmp_path: Path) -> None:
    words = ["SOLVER.AMP.ENABLED", True, "SOLVER.AMP.PRECISION", "bfloat16", "SOLVER.MAX_ITER", 2]
    main(arguments("--config-file", config, *words, "OUTPUT_DIR", tmp_path / "bfloat16"))
    main(arguments("--config-file", config, *words[4:], "OUTPUT_DIR", tmp_path / "float32"))
    first, second = (
        read_checkpoint(str(tmp_path / name / "model_final.pth"))["model"]
        for name in ("bfloat16", "float32")
    )
    assert all(value.dtype == second[name].dtype for name, value in first.items())
    assert any(not torch.equal(first[name], second[name]) for name in first)
    losses = [
        next(line["total_loss"] for line in metrics(tmp_path / name) if "total_loss" in line)
        for name in ("bfloat16", "float32")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=0.05)


def test_a_disk_without_room_for_the_numbers_is_explained(config: str, tmp_path: Path) -> None:
    class Fill(HookBase):
        def after_step(self) -> None:
            if self.trainer.iter == 5:
                stack.enter_context(full_disk(1))

    words = ["--config-file", config, "DATASETS.TEST", "()", "SOLVER.CHECKPOINT_PERIOD", 21]
    trainer = Trainer(setup(arguments(*words, "SOLVER.MAX_ITER", 22)))
    trainer.resume_or_load(resume=False)
    trainer.register_hooks([Fill()])
    logged: list[logging.LogRecord] = []
    handler = logging.Handler()
    handler.emit = logged.append
    training = logging.getLogger("detectron2.engine.train_loop")
    training.addHandler(handler)
    expected = rf"{re.escape(str(tmp_path))}/pretrain cannot be written: .*; free some space"
    with contextlib.ExitStack() as stack, pytest.raises(UserError, match=expected):
        trainer.train()
    training.removeHandler(handler)
    assert trainer.iter == 19  # where metrics.json is written for the first time
    assert logged
    assert not any(record.exc_info for record in logged)  # no traceback


@pytest.mark.parametrize(("period", "saved"), [(2, "model_0000001.pth"), (0, "model_final.pth")])
def test_a_signal_in_an_evaluation_stops_it_after_a_checkpoint(
    config: str, period: int, saved: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    words = ["TEST.EVAL_PERIOD", period, "SOLVER.CHECKPOINT_PERIOD", 100]
    whole = main(arguments("--config-file", config, *words, "OUTPUT_DIR", tmp_path / "whole"))
    build = Trainer.build_test_loader

    def interrupted(cfg: Any, name: str) -> Any:
        os.kill(os.getpid(), signal.SIGTERM)
        return build(cfg, name)

    monkeypatch.setattr(Trainer, "build_test_loader", interrupted)
    with pytest.raises(SystemExit) as end:
        main(arguments("--config-file", config, *words))
    assert end.value.code == 143
    folder = tmp_path / "pretrain"
    assert (folder / "last_checkpoint").read_text() == saved
    assert "stopped by SIGTERM in an evaluation; --resume" in (folder / "log.txt").read_text()
    monkeypatch.undo()
    assert main(arguments("--config-file", config, "--resume", *words)) == whole
    line = "Resuming after iteration 2 of 6" if period else "nothing is trained"
    assert line in (folder / "log.txt").read_text()


def test_a_signal_in_the_last_step_leaves_the_evaluation_out(config: str, tmp_path: Path) -> None:
    trainer = Trainer(setup(arguments("--config-file", config)))
    trainer.register_hooks([Signal(signal.SIGTERM, 5)])
    trainer.resume_or_load(resume=False)
    message = r"stopped by SIGTERM after iteration 6 of 6; saved .*model_final\.pth; --resume"
    with pytest.raises(Stopped, match=message):
        trainer.train()
    assert not (tmp_path / "pretrain" / "inference").exists()


def test_a_worker_that_dies_ends_training_with_one_line(
    config: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def die(*_: object) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    monkeypatch.setattr("ddep.data.samples.TrainingSamples.__getitem__", die)
    message = r"loads images died, .*DataLoader worker .*; lower DATALOADER\.NUM_WORKERS"
    with pytest.raises(UserError, match=message):
        main(arguments("--config-file", config, "DATALOADER.NUM_WORKERS", 1))
    assert "Traceback" not in (tmp_path / "pretrain" / "log.txt").read_text()
