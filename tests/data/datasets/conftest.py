from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets import builtin

from ddep.data.datasets import dataset_root, declaration, register_all
from tests.data.checks.trees import Tree
from tests.data.datasets.imitation_videos import Videos


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


@pytest.fixture
def tree(root: Path) -> Iterator[Tree]:
    """The data in the folder ``data`` of $DETECTRON2_DATASETS."""
    tree = Tree(root / "data")
    yield tree
    tree.unregister()


@pytest.fixture
def videos(root: Path) -> Iterator[Videos]:
    """Two videos in the folder ``data`` of $DETECTRON2_DATASETS."""
    yield Videos(root / "data")
    DatasetCatalog.pop("own_video", None)
    MetadataCatalog.pop("own_video", None)


@pytest.fixture
def own_declarations(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Forget the data sets that a test declares after it."""
    monkeypatch.setattr(declaration, "_DECLARATIONS", dict(declaration._DECLARATIONS))
    before = set(DatasetCatalog.list())
    yield
    for name in set(DatasetCatalog.list()) - before:
        DatasetCatalog.pop(name)
        MetadataCatalog.pop(name)


@pytest.fixture
def everywhere(root: Path) -> Iterator[Path]:
    """Like ``root``, but also for the sets that detectron2 registers on import."""
    _register_builtin(root)
    yield root
    _register_builtin(Path(__file__).parents[2] / "no-data-sets")


def _register_builtin(root: Path) -> None:
    for name in DatasetCatalog.list():
        if name.startswith(("coco_", "cityscapes_", "keypoints_coco_")):
            DatasetCatalog.pop(name)
            MetadataCatalog.pop(name)
    builtin.register_all_coco(str(root))
    builtin.register_all_cityscapes(str(root))
    builtin.register_all_cityscapes_panoptic(str(root))
    register_all(root)
