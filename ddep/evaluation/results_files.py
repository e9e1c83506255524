"""The results of an evaluation as files."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from typing import Any

from ddep.evaluation.results_table import ResultsTable
from ddep.files import atomic_write


def write_results(
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
