"""What each of several processes does."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from typing import Any

from ddep.engine.endings import status_of
from ddep.engine.placement import Placement
from ddep.engine.process_group import join_group, leave_group
from ddep.errors import Stopped


def run_rank(
    main: Callable[[argparse.Namespace], Any],
    args: argparse.Namespace,
    placement: Placement,
    device: str,
) -> None:
    """Join the other processes, call ``main(args)`` and leave them.

    Args:
        main: what is done.
        args: its argument.
        placement: of this process.
        device: "cuda" or "cpu", see :func:`join_group`.

    Raises:
        Stopped: in rank 0, when ``main`` was stopped in all processes.
        SystemExit: in the others then.
    """
    join_group(placement, device)
    stopped = None
    try:
        main(args)
    except Stopped as error:
        stopped = error
    leave_group()
    if stopped is not None:
        if placement.rank > 0:
            sys.exit(status_of(stopped))
        raise stopped
