"""Damaged checkpoints of all formats load or give one clear error."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest

from tests.checkpoint.small_checkpoints import SMALL

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
NUMBER = 500


def test_damaged_checkpoints_neither_crash_nor_hang_nor_leave_files(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.checkpoint.mutate", str(tmp_path), str(NUMBER)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    result = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=600
    )
    cases = [json.loads(line) for line in result.stdout.splitlines()]
    assert result.returncode == 0, f"case {len(cases)}: {result.stderr[-3000:]}"
    assert len(cases) == NUMBER
    assert {case["file"] for case in cases} == {name for _, name in SMALL}
    # Each kind of damage is sometimes noticed, but only truncation always.
    outcomes = Counter((case["kind"], case["outcome"] == "loaded") for case in cases)
    assert {kind for kind, loaded in outcomes if loaded} == {0, 2, 3}
    assert all(outcomes[kind, False] >= 20 for kind in range(4))
    for case in cases:
        assert len(case["outcome"]) > 20 or case["outcome"] == "loaded"
