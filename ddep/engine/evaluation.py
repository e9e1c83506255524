"""What ``train_net.py --eval-only`` does: evaluate one checkpoint or several."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

from detectron2.config import CfgNode
from detectron2.evaluation import verify_results
from detectron2.utils import comm
from torch import nn

from ddep.checkpoint import Checkpointer
from ddep.checkpoint.listing import list_checkpoints
from ddep.data.labels import relative_names
from ddep.engine.ema import WeightAverage, evaluate_average, with_output_in
from ddep.engine.execution import prepare_execution
from ddep.engine.trainer import Trainer
from ddep.evaluation import ResultsTable
from ddep.evaluation.results_files import write_files

logger = logging.getLogger(__name__)


def evaluate(cfg: CfgNode, *, resume: bool) -> dict[str, Any]:
    """Evaluate the checkpoints that MODEL.WEIGHTS names on every data set in DATASETS.TEST.

    The results of a single checkpoint go to OUTPUT_DIR/inference. Of several checkpoints, each has
    its results in OUTPUT_DIR/<checkpoint>/inference; a table of all goes to the log and, as
    results.md, results.csv and results.json, to OUTPUT_DIR/inference.

    Args:
        cfg: the whole config; MODEL.WEIGHTS as :func:`list_checkpoints` takes it.
        resume: evaluate the last checkpoint in OUTPUT_DIR instead, if there is one.

    Returns:
        What :meth:`Trainer.test` returns; with SOLVER.EMA.ENABLED, ``ema`` holds the results of the
        averaged weights, if the checkpoint has them. With several checkpoints, one such dict by
        checkpoint name. Empty in all but the main process.

    Raises:
        UserError: a checkpoint cannot be read or does not fit.
    """
    paths = _find(cfg, resume)
    if len(paths) == 1:
        results = _evaluate(cfg, paths[0])
        if comm.is_main_process():
            verify_results(cfg, results)
        return results
    results = {}
    for number, (path, name) in enumerate(zip(paths, _names(paths), strict=True), 1):
        logger.info(f"Checkpoint {number} of {len(paths)}: {path}")
        results[name] = _evaluate(with_output_in(cfg, name), path)
        if comm.is_main_process():
            _write_table(cfg, results)  # after each, so that an error loses none
    return results if comm.is_main_process() else {}


def _find(cfg: CfgNode, resume: bool) -> list[str]:
    if resume:
        checkpointer = Checkpointer(nn.Module(), cfg.OUTPUT_DIR)  # looks for files only
        if checkpointer.has_checkpoint():
            return [checkpointer.get_checkpoint_file()]
    paths = list_checkpoints(cfg.MODEL.WEIGHTS) if comm.is_main_process() else []
    return comm.all_gather(paths)[0]


def _names(paths: Sequence[str]) -> list[str]:
    """A different name for each checkpoint: its path below their common folder, no extension."""
    relative = relative_names(paths)
    names = [os.path.splitext(relative[path])[0] for path in paths]
    return names if len(set(names)) == len(names) else [relative[path] for path in paths]


def _evaluate(cfg: CfgNode, path: str) -> dict[str, Any]:
    # A new model each time: weights that this checkpoint lacks must not stay from the last one.
    model = Trainer.build_model(cfg)
    prepare_execution(cfg, model)
    checkpointer = Checkpointer(model, cfg.OUTPUT_DIR, encoder=cfg.MODEL.BACKBONE.FROZEN_WEIGHTS)
    rest = checkpointer.load(path, checkpointables=[])
    absent = checkpointer.absent_parameters()
    if absent:
        logger.warning(
            f"{len(absent)} weights of the model, such as {absent[0]}, are not in {path}: the "
            "results are those of a partly random model"
        )
    results = Trainer.test(cfg, model)
    if cfg.SOLVER.EMA.ENABLED and "ema" in rest:
        average = WeightAverage(model, cfg.SOLVER.EMA.DECAY)
        average.load_state_dict(rest["ema"])
        averaged = evaluate_average(Trainer.test, cfg, model, average)
        if results:
            results["ema"] = averaged
    return results


def _write_table(cfg: CfgNode, results: Mapping[str, Mapping[str, Any]]) -> None:
    table = ResultsTable({name: _by_task(found) for name, found in results.items()}, mean=False)
    logger.info(f"Results of {len(results)} checkpoints:\n{table.to_markdown()}")
    write_files(cfg.OUTPUT_DIR, results, table)


def _by_task(results: Mapping[str, Any], parents: str = "") -> dict[str, Mapping[str, float]]:
    """Metrics by task, whose name follows the data set's and ``ema`` if there are any."""
    found = {}
    for name, value in results.items():
        if any(isinstance(inner, Mapping) for inner in value.values()):
            found |= _by_task(value, f"{parents}{name}/")
        else:
            found[f"{parents}{name}"] = value
    return found
