from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ddep.data.datasets import dataset_root, register_all


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty folder that is $DETECTRON2_DATASETS during the test."""
    usual = dataset_root()
    folder = tmp_path / "datasets"
    folder.mkdir()
    monkeypatch.setenv("DETECTRON2_DATASETS", str(folder))
    register_all(folder)
    yield folder
    register_all(usual)
