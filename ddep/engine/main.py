"""What ``train_net.py`` does: pretrain, fine-tune or evaluate."""

from __future__ import annotations

import argparse
from typing import Any

from detectron2.engine import default_argument_parser

from ddep.distributed import launch
from ddep.endings import errors_as_lines
from ddep.engine.evaluation import evaluate
from ddep.engine.processes import check_processes
from ddep.engine.setup import setup
from ddep.engine.trainer import Trainer


def run(arguments: list[str] | None = None) -> None:
    """Run ``train_net.py`` with the given command line (the process's by default).

    If the user made a mistake or training diverges, in any process, the program ends with
    ``error: <one line>`` on stderr and status 1. On SIGTERM and Ctrl-C, training first saves a
    checkpoint; the status is 143 or 130.
    """
    args = default_argument_parser().parse_args(arguments)
    with errors_as_lines():
        launch(main, args, check_processes(args))


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate, or evaluate only, in this process, which may be one of several.

    Args:
        args: what detectron2's ``default_argument_parser`` parses.

    Returns:
        The results of the last evaluation, task -> metric -> number; see
        :func:`ddep.engine.evaluation.evaluate`.

    Raises:
        UserError: anything that the user can fix.
        FloatingPointError: training has diverged.
    """
    cfg = setup(args)
    if not args.eval_only:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        return trainer.train()
    return evaluate(cfg, resume=args.resume)
