"""A stand-in for train_net.py."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from ddep.experiments import scheduler


@pytest.fixture
def stand_in_log(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Let the stand-in do the runs; the file has a line for each start and each end."""
    log = tmp_path / "stand-in.log"
    log.touch()
    monkeypatch.setenv("STAND_IN_LOG", str(log))
    stand_in = Path(__file__).parent / "stand_in.py"
    monkeypatch.setattr(scheduler, "_INTERPRETER", (sys.executable, str(stand_in)))
    return log
