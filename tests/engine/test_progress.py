from __future__ import annotations

import logging

import pytest
from detectron2.utils.events import EventStorage

from ddep.engine.progress import ProgressPrinter


@pytest.fixture
def line(caplog: pytest.LogCaptureFixture):
    def write(printer: ProgressPrinter) -> str:
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="ddep"):
            printer.write()
        return "\n".join(record.getMessage() for record in caplog.records)

    return write


def test_one_line_has_everything(line) -> None:
    with EventStorage(119) as storage:
        storage.put_scalars(total_loss=6.0, loss_ce=1.5, loss_ce_0=2.0, loss_mask_3=0.5)
        storage.put_scalars(time=0.5, data_time=0.02, lr=1e-4)
        text = line(ProgressPrinter(max_iter=500, images_per_iteration=16))
        eta, _ = storage.latest()["eta_seconds"]
    words = text.split("  ")
    assert words[:9] == [
        "iter 120/500",
        "eta 0:03:10",
        "32 images/s",
        "total_loss 6",
        "loss_ce 1.5",
        "aux 2.5",
        "lr 0.0001",
        "time 0.5 s",
        "data_time 0.02 s",
    ]
    assert eta == 0.5 * 380
    # This process, with torch in it.
    name, memory, unit = words[9].split()
    assert (name, unit) == ("max_mem", "MiB")
    assert 100 < int(memory) < 100_000


def test_the_first_iterations_are_not_timed_yet(line) -> None:
    with EventStorage(0) as storage:
        storage.put_scalars(total_loss=0.98764, lr=0.001)
        assert line(ProgressPrinter(500, 8)).startswith("iter 1/500  total_loss 0.9876  lr 0.001")


def test_losses_of_denoising_are_all_shown(line) -> None:
    with EventStorage(0) as storage:
        storage.put_scalars(loss_denoise=1.0, loss_denoise_s8=0.25)
        text = line(ProgressPrinter(500, 8))
    assert "loss_denoise 1  loss_denoise_s8 0.25" in text
    assert "aux" not in text


def test_numbers_are_medians_of_the_last_twenty(line) -> None:
    with EventStorage(0) as storage:
        for value in [100.0] * 20 + [1.0] * 11 + [50.0] * 9:
            storage.put_scalar("total_loss", value)
            storage.step()
        assert "total_loss 1" in line(ProgressPrinter(500, 8)).split("  ")


@pytest.mark.parametrize("iteration", [500, 501])
def test_nothing_is_written_once_training_is_over(line, iteration: int) -> None:
    with EventStorage(iteration) as storage:
        storage.put_scalar("total_loss", 1.0)
        assert line(ProgressPrinter(500, 8)) == ""
