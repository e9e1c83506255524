"""Training that is killed with -9, a few times; ``kill_and_resume.py`` does many."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from tests.engine.kill_and_resume import KINDS, differences

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("kind", KINDS)
def test_runs_that_are_killed_and_resumed_end_bit_equal(kind: str) -> None:
    # A process of its own, since one that has run other tests cannot fork safely.
    result = subprocess.run(
        [sys.executable, "-m", "tests.engine.kill_and_resume", kind, "--runs", "3"],
        cwd=ROOT,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert "all end bit-equal" in result.stdout


def test_every_difference_is_found(tmp_path: Path) -> None:
    content = {"model": {"a": torch.tensor([0.0, 1.0])}, "state": {"best": [None, 2.0]}, "n": 1}
    changed = [
        content | {"model": {"a": torch.tensor([-0.0, 1.0])}},
        content | {"model": {"a": torch.tensor([0.0, 1.0], dtype=torch.float64)}},
        content | {"model": {"a": torch.tensor([[0.0, 1.0]])}},
        content | {"state": {"best": [None, 2.5]}},
        content | {"state": {"best": [None]}},
        {key: value for key, value in content.items() if key != "n"},
    ]
    places = ["/model/a"] * 3 + ["/state/best/1"] * 2 + ["/n"]
    torch.save(content, tmp_path / "one.pth")
    torch.save(content, tmp_path / "same.pth")
    assert differences(tmp_path / "one.pth", tmp_path / "same.pth") == []
    for other, place in zip(changed, places, strict=True):
        torch.save(other, tmp_path / "other.pth")
        assert differences(tmp_path / "one.pth", tmp_path / "other.pth") == [place]
