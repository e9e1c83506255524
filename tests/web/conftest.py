from __future__ import annotations

from pathlib import Path

import pytest

from tests.engine.tiny_runs import one_thread
from tests.web.tiny_models import write_runs

__all__ = ["one_thread"]


@pytest.fixture(scope="session")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of runs, see :func:`write_runs`."""
    return write_runs(tmp_path_factory.mktemp("experiment"))
