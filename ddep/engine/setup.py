"""From the command line to a config, log files and seeds."""

from __future__ import annotations

import argparse
import logging
import os
import sys

from detectron2.config import CfgNode
from detectron2.engine import default_setup
from detectron2.utils import comm
from detectron2.utils.logger import setup_logger

from ddep.device import adapt_to_device
from ddep.engine.checks import Run, check_run, check_values
from ddep.engine.known_errors import needs_traceback
from ddep.errors import UserError
from ddep.tasks import load_config, task_of

logger = logging.getLogger(__name__)

_LOGGERS = ("fvcore", "detectron2", "ddep")


def setup(args: argparse.Namespace) -> CfgNode:
    """Read and check the config, register its data sets, set up the logs and seed everything.

    Args:
        args: what detectron2's ``default_argument_parser`` parses.

    Returns:
        The config, frozen, without what this machine cannot do.

    Raises:
        UserError: the run cannot start, or would end in an error.
    """
    if not args.config_file:
        raise UserError("--config-file is missing; name a config, such as one in configs/")
    # Logs are needed now: indexing a folder of millions of images (below) reports its progress.
    _forget_loggers()
    setup_logger(distributed_rank=comm.get_rank(), name="ddep")
    cfg = load_config(args.config_file, args.opts or ())
    check_values(cfg)
    notes = adapt_to_device(cfg) + task_of(cfg).adapt(cfg)
    cfg.freeze()
    notes += check_run(Run(cfg, eval_only=args.eval_only, resume=args.resume))
    try:
        os.makedirs(cfg.OUTPUT_DIR, exist_ok=True)
    except OSError as error:
        raise UserError(f"OUTPUT_DIR {cfg.OUTPUT_DIR} cannot be made: {error.strerror}") from error
    _start_logs(cfg, args)
    for note in notes:
        logger.info(note)
    return cfg


def _start_logs(cfg: CfgNode, args: argparse.Namespace) -> None:
    """Log to the console and to OUTPUT_DIR/log.txt, and seed (detectron2 does both in one).

    Details (environment, config, model, names of weights) go to log.txt, not to the console.
    """
    _forget_loggers()
    rank = comm.get_rank()
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name="ddep")
    # default_setup makes these two calls again, which then do nothing.
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank, name="fvcore")
    setup_logger(cfg.OUTPUT_DIR, distributed_rank=rank)
    _set_console_level(logging.WARNING)
    default_setup(cfg, args)
    _set_console_level(logging.INFO)
    logging.getLogger("detectron2.engine.train_loop").addFilter(_needs_traceback)
    logger.info(f"Config and log: {cfg.OUTPUT_DIR}/config.yaml, {cfg.OUTPUT_DIR}/log.txt")


def _forget_loggers() -> None:
    """Remove the log handlers of an earlier run in this process: no line is logged twice."""
    setup_logger.cache_clear()
    for name in _LOGGERS:
        logging.getLogger(name).handlers.clear()


def _set_console_level(level: int) -> None:
    for name in _LOGGERS:
        for handler in logging.getLogger(name).handlers:
            if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stdout:
                handler.setLevel(level)


def _needs_traceback(record: logging.LogRecord) -> bool:
    """False for what detectron2 logs when training ends with an error that one line explains."""
    return needs_traceback(record.exc_info[1] if record.exc_info else None)
