from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.data.checks.trees import Tree


@pytest.fixture
def tree(tmp_path: Path) -> Iterator[Tree]:
    tree = Tree(tmp_path / "data")
    yield tree
    tree.unregister()
