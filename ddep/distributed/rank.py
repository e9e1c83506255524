"""What each of several processes does."""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Callable
from typing import Any

from ddep.distributed.failures import FailureWatch, yield_to_others
from ddep.distributed.placement import Placement
from ddep.distributed.process_group import join_group, leave_group
from ddep.endings import status_of
from ddep.errors import Stopped


def run_rank(
    main: Callable[[argparse.Namespace], Any],
    args: argparse.Namespace,
    placement: Placement,
    device: str,
) -> None:
    """Join the other processes, call ``main(args)`` and leave them.

    If ``main`` raises an error in any process, all processes end, and the first error is reported.

    Args:
        main: the work of each process.
        args: its argument.
        placement: of this process.
        device: "cuda" or "cpu", see :func:`join_group`.

    Raises:
        Stopped: ``main`` was stopped in all processes, and this is rank 0.
        SystemExit: likewise, in all other processes.
    """
    join_group(placement, device)
    watch = FailureWatch(placement)
    # detectron2 logs the error that ends training; a cause in another process is logged first.
    logging.getLogger("detectron2.engine.train_loop").addFilter(_yield_to_others)
    # A launcher sends SIGTERM to the survivors of a killed process; these save no checkpoint.
    logging.getLogger("ddep.engine.stop_signals").addFilter(lambda _: not watch.is_ending)
    stopped = None
    try:
        main(args)
    except Stopped as error:
        stopped = error
    except BaseException as error:
        watch.report(error)
    leave_group()
    watch.finish()
    if stopped is not None:
        if placement.rank > 0:
            sys.exit(status_of(stopped))
        raise stopped


def _yield_to_others(record: logging.LogRecord) -> bool:
    yield_to_others(record.exc_info[1] if record.exc_info else None)
    return True
