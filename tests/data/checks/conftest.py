from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog

from tests.data.checks.trees import Tree
from tests.data.datasets.imitation_videos import Videos


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    tree = Tree(tmp_path / "data")
    yield tree
    tree.unregister()


@pytest.fixture
def videos(tmp_path: Path) -> Iterator[Videos]:
    yield Videos(tmp_path / "data")
    DatasetCatalog.pop("own_video", None)
    MetadataCatalog.pop("own_video", None)
