"""When training ends before its last iteration."""

from __future__ import annotations

import signal

from ddep.engine.resume import RunCheckpoints
from ddep.engine.train_step import StepResult
from ddep.errors import Stopped


def end_if_asked(last: StepResult | None, checkpoints: RunCheckpoints, max_skipped: int) -> None:
    """Save and raise, in all processes, if a signal came or too many steps were skipped.

    Args:
        last: what happened in the latest step; None before the first.
        checkpoints: the run's.
        max_skipped: SOLVER.MAX_SKIPPED_STEPS.

    Raises:
        Stopped: SIGINT or SIGTERM came.
        FloatingPointError: ``max_skipped`` steps in a row were skipped.
    """
    if last is None:
        return
    completed = checkpoints.state.completed
    if last.stop:
        path = checkpoints.save()
        raise Stopped(
            f"stopped by {signal.Signals(last.stop).name} after iteration {completed} of "
            f"{checkpoints.max_iter}; saved {path}; --resume continues from there",
            last.stop,
        )
    if last.skipped_in_a_row >= max_skipped:
        path = checkpoints.save()
        raise FloatingPointError(
            f"{last.skipped_in_a_row} steps in a row, up to iteration {completed}, had a loss or "
            f"gradients that are NaN or infinite; {path} has the weights from before; lower "
            "SOLVER.BASE_LR, lengthen the warm-up, clip gradients, or look at the images that the "
            "log names"
        )
