"""The batch script for Slurm, with Slurm's commands replaced by scripts that log their calls."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[2] / "tools" / "run-slurm.sh"
REQUEUE = "scontrol requeue 1234"


def submit(folder: Path, srun_ends: str, *words: str) -> tuple[int, list[str]]:
    """Run the script with an srun that ends in a shell command; return its status and all calls."""
    calls = folder / "calls"
    for name, end in (("srun", srun_ends), ("scontrol", "true")):
        program = folder / name
        program.write_text(f'#!/bin/bash\necho "{name} $*" >> {calls}\n{end}\n')
        program.chmod(0o755)
    environment = os.environ | {
        "PATH": f"{folder}:{os.environ['PATH']}",
        "SLURM_JOB_ID": "1234",
        "SLURM_CPUS_PER_TASK": "6",
    }
    status = subprocess.run(["bash", SCRIPT, *words], env=environment).returncode
    return status, calls.read_text().splitlines()


def test_arguments_and_cores_reach_the_tasks(tmp_path: Path) -> None:
    words = ("--config-file", "a.yaml", "OUTPUT_DIR", "out")
    status, calls = submit(tmp_path, "exit 0", *words)
    assert status == 0
    assert calls == [
        "srun --cpus-per-task=6 --kill-on-bad-exit=1 python -u train_net.py --resume "
        "--config-file a.yaml OUTPUT_DIR out"
    ]


@pytest.mark.parametrize(
    ("srun_ends", "status", "repeated"),
    [
        ("exit 143", 143, True),
        ("exit 1", 1, False),
        ("exit 137", 137, False),
        ("kill -TERM $PPID; exit 143", 143, False),
    ],
    ids=["out of time", "failed", "killed", "cancelled"],
)
def test_only_a_job_that_ran_out_of_time_is_repeated(
    tmp_path: Path, srun_ends: str, status: int, repeated: bool
) -> None:
    found, calls = submit(tmp_path, srun_ends)
    assert found == status
    assert (calls[-1] == REQUEUE) == repeated
