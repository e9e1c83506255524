"""What is taken from MODEL.WEIGHTS stays as it is for a while, whatever kind the model is."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from ddep.checkpoint import read_checkpoint
from ddep.engine import Trainer, main, setup
from ddep.errors import UserError
from tests.engine.test_exact_resume import KINDS, config, kind, one_thread, write_half
from tests.engine.tiny_runs import arguments

pytestmark = pytest.mark.slow

__all__ = ["config", "kind", "one_thread"]

RATES: dict[str, Any] = {
    "SOLVER.TRANSFERRED_MULTIPLIER": 0.5,
    "SOLVER.NEW_ONLY_ITERS": 2,
    "SOLVER.LAYER_DECAY": 0.8,
    # Large steps: small ones are lost in the rounding of norms' weights, which are 1.
    "SOLVER.BACKBONE_MULTIPLIER": 1.0,
    "SOLVER.WARMUP_FACTOR": 1.0,
    "SOLVER.MAX_ITER": 3,
    "SOLVER.CHECKPOINT_PERIOD": 1,
    "SOLVER.EMA.ENABLED": True,
    "DATASETS.TEST": "()",
}


def words(config: str, weights: object, folder: Path, **settings: Any) -> list[object]:
    keys = RATES | {f"SOLVER.{key}": value for key, value in settings.items()}
    keys |= {"MODEL.WEIGHTS": weights, "OUTPUT_DIR": folder}
    return ["--config-file", config, *(item for pair in keys.items() for item in pair)]


def changed(before: dict[str, Tensor], after: dict[str, Tensor], names: set[str]) -> set[str]:
    return {name for name in names if not torch.equal(before[name], after[name])}


def test_only_new_parameters_train_at_first(config: str, kind: str, tmp_path: Path) -> None:
    half = write_half(config, tmp_path / "half.pth")
    optimizer = KINDS[kind].get("SOLVER.OPTIMIZER", "ADAMW")
    main(arguments(*words(config, half, tmp_path / "run", OPTIMIZER=optimizer)))
    start = read_checkpoint(half)["model"]
    files = [read_checkpoint(str(tmp_path / "run" / f"model_{i:07d}.pth")) for i in range(3)]
    weights = [file["model"] for file in files]
    transferred = set(files[0]["transferred"]["names"])
    average = files[1]["ema"]["model"]
    trained = {name for name in average if "running_" not in name}
    new = trained - transferred
    assert transferred
    assert len(new) > 5
    assert transferred == trained & start.keys()

    assert changed(start, weights[1], transferred) == set()
    assert changed(start, average, transferred) == set()
    assert len(changed(weights[0], weights[1], new)) > 0.7 * len(new)
    # Statistics follow the images all the time.
    statistics = {name for name in average.keys() & start.keys() if "running_" in name}
    assert changed(start, weights[0], statistics) == statistics
    assert len(changed(weights[1], weights[2], transferred)) > 0.7 * len(transferred)
    groups = files[0]["trainer"]["_trainer"]["optimizer"]["param_groups"]
    states = files[1]["trainer"]["_trainer"]["optimizer"]["state"]
    for group in groups:
        has_state = {number in states for number in group["params"]}
        assert has_state == {not group["name"].startswith("transferred")}, group["name"]


@pytest.fixture
def half(config: str, tmp_path: Path) -> str:
    return write_half(config, tmp_path / "half.pth")


ONE_KIND = pytest.mark.parametrize("kind", ["classification"], indirect=True)


@ONE_KIND
def test_the_log_says_how_much_is_transferred(config: str, half: str, tmp_path: Path) -> None:
    cfg = setup(arguments(*words(config, half, tmp_path / "run")))
    trainer = Trainer(cfg)
    total = sum(p.requires_grad for p in trainer.model.parameters())
    trainer.resume_or_load(resume=False)
    number = len(trainer.transferred.parameters)
    assert 0 < number < total
    message = f"{number} of {total} trained parameters are from MODEL.WEIGHTS and stay as they are"
    log = (tmp_path / "run" / "log.txt").read_text()
    assert f"{message} for 2 iterations" in log


@ONE_KIND
def test_without_weights_everything_is_new(config: str, tmp_path: Path) -> None:
    cfg = setup(arguments(*words(config, "", tmp_path / "run", LAYER_DECAY=1.0)))
    trainer = Trainer(cfg)
    trainer.resume_or_load(resume=False)
    assert trainer.transferred.held_in(0) == []
    assert not any("transferred" in group["name"] for group in trainer.optimizer.param_groups)


@ONE_KIND
def test_a_period_without_anything_new_is_an_error(config: str, half: str, tmp_path: Path) -> None:
    usual = words(config, half, tmp_path / "usual", TRANSFERRED_MULTIPLIER=1.0, NEW_ONLY_ITERS=0)
    main(arguments(*usual))
    everything = tmp_path / "usual" / "model_final.pth"
    with pytest.raises(UserError, match=r"NEW_ONLY_ITERS is 2, but all \d+ trained parameters are"):
        main(arguments(*words(config, everything, tmp_path / "run")))


@ONE_KIND
def test_options_must_be_those_of_the_run_that_is_resumed(
    config: str, half: str, tmp_path: Path
) -> None:
    with_options = words(config, half, tmp_path / "with")
    without = words(config, half, tmp_path / "out", TRANSFERRED_MULTIPLIER=1.0, NEW_ONLY_ITERS=0)
    main(arguments(*with_options))
    main(arguments(*without))
    with pytest.raises(UserError, match=r"model_final.pth: the run trained other parameters"):
        main(arguments("--resume", *without, "OUTPUT_DIR", tmp_path / "with"))
    keys = "SOLVER.TRANSFERRED_MULTIPLIER or SOLVER.NEW_ONLY_ITERS"
    with pytest.raises(UserError, match=f"is of a run without {keys}; --resume needs the config"):
        main(arguments("--resume", *with_options, "OUTPUT_DIR", tmp_path / "out"))
