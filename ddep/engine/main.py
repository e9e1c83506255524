"""What ``train_net.py`` does: pretrain, fine-tune or evaluate."""

from __future__ import annotations

import argparse
import logging
from typing import Any

from detectron2.engine import default_argument_parser
from detectron2.evaluation import verify_results
from detectron2.utils import comm

from ddep.checkpoint import Checkpointer
from ddep.engine.checks import check_processes
from ddep.engine.endings import errors_as_lines
from ddep.engine.launch import launch
from ddep.engine.setup import setup
from ddep.engine.trainer import Trainer

logger = logging.getLogger(__name__)


def run(arguments: list[str] | None = None) -> None:
    """Run ``train_net.py`` with the given command line (the process's by default).

    A mistake of the user's or a training that diverges, in whichever process, ends the program with
    ``error: <one line>`` on stderr and status 1; Ctrl-C ends it with ``interrupted`` and 130.
    """
    args = default_argument_parser().parse_args(arguments)
    with errors_as_lines():
        launch(main, args, check_processes(args))


def main(args: argparse.Namespace) -> dict[str, Any]:
    """Train and evaluate, or evaluate only, in this process (one of several with several GPUs).

    Args:
        args: what detectron2's ``default_argument_parser`` parses.

    Returns:
        The results of the last evaluation, task -> metric -> number.

    Raises:
        UserError: whatever the user can mend.
        FloatingPointError: training has diverged.
    """
    cfg = setup(args)
    if not args.eval_only:
        trainer = Trainer(cfg)
        trainer.resume_or_load(resume=args.resume)
        return trainer.train()
    model = Trainer.build_model(cfg)
    checkpointer = Checkpointer(model, cfg.OUTPUT_DIR)
    checkpointer.resume_or_load(cfg.MODEL.WEIGHTS, resume=args.resume)
    absent = checkpointer.absent_parameters()
    if absent:
        logger.warning(
            f"{len(absent)} weights of the model, such as {absent[0]}, are not in "
            f"{checkpointer.report.path}: the results are those of a model that is partly random"
        )
    results = Trainer.test(cfg, model)
    if comm.is_main_process():
        verify_results(cfg, results)
    return results
