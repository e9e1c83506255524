"""The results of an evaluation as files."""

from __future__ import annotations

import json
import logging
import os
import re
from collections.abc import Mapping
from typing import Any

from detectron2.config import CfgNode

from ddep.evaluation.results_table import ResultsTable
from ddep.files import atomic_write

logger = logging.getLogger(__name__)


def write_results(cfg: CfgNode, results: Mapping[str, Any]) -> None:
    """Write the results of an evaluation; those of several data sets also as one table.

    Args:
        cfg: reads DATASETS.TEST and OUTPUT_DIR.
        results: task -> metric -> number; with several data sets, such a dict by data set name.

    Raises:
        UserError: see :func:`write_files`.
    """
    table = ResultsTable(results) if len(set(cfg.DATASETS.TEST)) > 1 else None
    if table:
        logger.info(f"Results on {len(results)} data sets:\n{table.to_markdown()}")
    write_files(cfg.OUTPUT_DIR, results, table)


def write_files(
    output_dir: str, results: Mapping[str, Any], table: ResultsTable | None = None
) -> None:
    """Write ``output_dir``/inference/results.json, and the table as results.md and results.csv.

    Raises:
        UserError: the folder cannot be written.
    """
    files = {"results.json": json.dumps(results, indent=2, default=float)}
    if table is not None:
        files |= {"results.md": f"{table.to_markdown()}\n", "results.csv": table.to_csv()}
    folder = os.path.join(output_dir, "inference")
    os.makedirs(folder, exist_ok=True)
    for name, text in files.items():
        with atomic_write(os.path.join(folder, name)) as file:
            file.write(text.encode())


def output_folder(cfg: CfgNode, dataset_name: str) -> str:
    """The folder for the results on a data set: OUTPUT_DIR/inference, or one inside it.

    With several data sets in DATASETS.TEST, each has its own.
    """
    folder = os.path.join(cfg.OUTPUT_DIR, "inference")
    if len(cfg.DATASETS.TEST) > 1:
        folder = os.path.join(folder, re.sub(r"[^\w.-]+", "_", dataset_name))
    return folder
