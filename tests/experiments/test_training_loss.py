"""Whether a loss is flat is read from metrics.json."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from ddep.experiments.training_loss import LossEnd, loss_end, mean_loss_end


def write_losses(folder: Path, losses: dict[int, float]) -> None:
    lines = [json.dumps({"iteration": i, "total_loss": loss}) for i, loss in losses.items()]
    lines.insert(1, json.dumps({"iteration": 49, "sem_seg/mIoU": 3.0}))
    (folder / "metrics.json").write_text("\n".join([*lines, '{"iteration": 9', ""]))


def test_the_last_fifth_is_compared_with_the_one_before(tmp_path: Path) -> None:
    # Of 100 iterations, 60 to 79 and 80 to 99 count; a resumed run repeats one of them.
    losses = {19: 9.0, 39: 8.0, 59: 7.0, 69: 5.0, 79: 3.0, 89: 9.0, 99: 2.0}
    write_losses(tmp_path, losses)
    with open(tmp_path / "metrics.json", "a") as file:
        file.write(json.dumps({"iteration": 89, "total_loss": 1.0}) + "\n")
    end = loss_end(tmp_path)
    assert (end.loss, end.change) == pytest.approx((1.5, 1.5 / 4 - 1))
    assert not end.is_flat
    write_losses(tmp_path, dict.fromkeys(losses, 2.0))
    assert loss_end(tmp_path) == LossEnd(2.0, 0.0)
    assert loss_end(tmp_path).is_flat


def test_runs_that_do_not_tell(tmp_path: Path) -> None:
    assert loss_end(tmp_path) is None
    write_losses(tmp_path, {99: 1.0})
    assert loss_end(tmp_path) is None
    assert mean_loss_end([None, None]) is None


def test_mean_of_several() -> None:
    assert mean_loss_end([LossEnd(1.0, -0.3), None, LossEnd(2.0, -0.1)]) == LossEnd(1.5, -0.2)
