"""What ``train_net.py`` does: pretrain, fine-tune or evaluate."""

from __future__ import annotations

import argparse
import contextlib
import logging
import sys
from collections.abc import Iterator
from typing import Any

from detectron2.engine import default_argument_parser, launch
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from torch.multiprocessing import ProcessRaisedException

from ddep.checkpoint import Checkpointer
from ddep.engine.checks import check_gpus
from ddep.engine.setup import setup
from ddep.engine.trainer import Trainer
from ddep.errors import UserError, one_line

logger = logging.getLogger(__name__)


def run(arguments: list[str] | None = None) -> None:
    """Run ``train_net.py`` with the given command line (the process's by default).

    A mistake of the user's or a training that diverges, in whichever process, ends the program with
    ``error: <one line>`` on stderr and status 1; Ctrl-C ends it with ``interrupted`` and 130.
    """
    args = default_argument_parser().parse_args(arguments)
    with errors_as_lines():
        check_gpus(args)
        launch(
            main,
            args.num_gpus,
            num_machines=args.num_machines,
            machine_rank=args.machine_rank,
            dist_url=args.dist_url,
            args=(args,),
        )


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


@contextlib.contextmanager
def errors_as_lines() -> Iterator[None]:
    """End the program with one line on stderr and status 1 on an error that one line explains.

    Those are :class:`UserError` and the FloatingPointError of a training that diverges. Ctrl-C ends
    it with the line ``interrupted`` and status 130, a shell's for that signal.
    """
    try:
        yield
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        sys.exit(130)
    except (UserError, FloatingPointError) as error:
        sys.exit(f"error: {one_line(error)}")
    except ProcessRaisedException as error:
        # A process of several; what it raised is at the end of the message.
        last = str(error).strip().splitlines()[-1]
        if not last.startswith(("ddep.errors.UserError: ", "FloatingPointError: ")):
            raise
        sys.exit(f"error: {one_line(error)}")
