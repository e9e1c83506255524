"""A folder stays locked while any process works in it."""

from __future__ import annotations

import signal
import sys
import time
from pathlib import Path

import pytest

from ddep.errors import UserError
from ddep.experiments.child_process import ChildProcess
from ddep.experiments.lock import locked


def test_children_keep_the_lock_until_they_end(tmp_path: Path) -> None:
    folder = tmp_path / "a" / "b"
    with locked(folder) as lock:
        sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
        child = ChildProcess(sleep, folder / "output.txt", {}, keep_open=(lock,))
    with pytest.raises(UserError, match=r"another process works on .*b; wait for its end"):
        locked(folder).__enter__()
    child.signal(signal.SIGKILL)
    while child.status() is None:
        time.sleep(0.01)
    with locked(folder):
        pass


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="file/a cannot be written: Not a directory; choose anoth"):
        locked(tmp_path / "file" / "a").__enter__()
