from __future__ import annotations

import os
from pathlib import Path

import pytest

from ddep.data.image_index import lister


@pytest.fixture(autouse=True)
def cache_of_test(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty cache."""
    monkeypatch.setenv("DDEP_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def settled(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat folders that have just been written as if they were old."""
    monkeypatch.setattr(lister, "_SETTLING_NS", -(10**18))


@pytest.fixture
def listed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The paths of the folders and files that are listed during the test."""
    paths: list[str] = []

    def record(name: str) -> None:
        original = getattr(lister, name)

        def list_container(root, container, *arguments):
            paths.append(os.path.join(container.path(root), ""))
            return original(root, container, *arguments)

        monkeypatch.setattr(lister, name, list_container)

    record("list_folder")
    record("list_tar")
    record("list_video")
    return paths
