"""An index is reused; after changes, only the changed containers are listed again."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from ddep.data.image_index import ImageIndex, open_index, stored
from tests.data.image_index.trees import Tar, Tree, contents, flatten, ids, write_tree

TREE: Tree = {
    "a": {"1.jpg": b"1", "2.jpg": b"2", "deep": {"3.jpg": b"3"}},
    "b": {"4.jpg": b"4"},
    "c": Tar({"5.jpg": b"5", "n1": Tar({"6.jpg": b"6"}), "n2": Tar({"7.jpg": b"7"})}),
    "notes.txt": b"",
}


@pytest.fixture
def root(tmp_path: Path) -> Path:
    write_tree(tmp_path / "root", TREE)
    time.sleep(0.02)  # so that changes get another time than this
    return tmp_path / "root"


def walk_plainly(root: Path) -> list[str]:
    """Find the images in another way; those in the tar file are taken from ``TREE``."""
    found = [
        os.path.relpath(os.path.join(folder, name), root)
        for folder, _, names in os.walk(root, followlinks=True)
        for name in names
        if name.endswith(".jpg")
    ]
    packed = [f"c/{name}" for name in flatten(TREE["c"])] if (root / "c.tar").exists() else []
    return sorted(found + packed)


def rename(old: Path, new: Path) -> None:
    old.rename(new)


def replace_with_the_same_times(folder: Path) -> None:
    """Replace a folder by another one with the same modification time."""
    times = folder.stat()
    shutil.rmtree(folder)
    write_tree(folder, {"other.jpg": b""})
    os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))


def add_and_set_the_time_back(folder: Path) -> None:
    times = folder.stat()
    (folder / "added.jpg").touch()
    os.utime(folder, ns=(times.st_atime_ns, times.st_mtime_ns))


# What changes, and the folders that have to be listed again.
CHANGES: dict[str, tuple[Callable[[Path], object], list[str]]] = {
    "image added": (lambda root: (root / "a/deep/new.jpg").touch(), ["a/deep"]),
    "image removed": (lambda root: (root / "a/1.jpg").unlink(), ["a"]),
    "last image removed": (lambda root: (root / "b/4.jpg").unlink(), ["b"]),
    "image renamed": (lambda root: rename(root / "b/4.jpg", root / "b/0.jpg"), ["b"]),
    "image moved": (lambda root: rename(root / "b/4.jpg", root / "a/4.jpg"), ["a", "b"]),
    "folder added": (lambda root: write_tree(root / "d/e", {"x.jpg": b""}), ["", "d", "d/e"]),
    "folder removed": (lambda root: shutil.rmtree(root / "a"), [""]),
    "folder renamed": (lambda root: rename(root / "a", root / "z"), ["", "z", "z/deep"]),
    "folder replaced": (lambda root: replace_with_the_same_times(root / "b"), ["", "b"]),
    "time set back": (lambda root: add_and_set_the_time_back(root / "b"), ["b"]),
    "tar file removed": (lambda root: (root / "c.tar").unlink(), [""]),
    "other file added": (lambda root: (root / "more.txt").touch(), [""]),
}


@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_noticed(
    change: str, root: Path, cache_of_test: Path, settled: None, listed: list[str]
) -> None:
    open_index(root)
    make, changed = CHANGES[change]
    make(root)
    listed.clear()
    assert ids(open_index(root)) == walk_plainly(root)
    # Renaming a folder changes its own times, but not those of the folders in it.
    assert sorted(listed) == [os.path.join(root, folder, "") for folder in changed]
    listed.clear()
    assert ids(open_index(root)) == walk_plainly(root)
    assert listed == []


def test_nothing_is_listed_again(root: Path, settled: None, listed: list[str]) -> None:
    first = contents(open_index(root))
    assert len(listed) == 7  # four folders, and the tar file with two in it
    assert (
        contents(open_index(root))
        == first
        == {name: content for name, content in flatten(TREE).items() if name.endswith(".jpg")}
    )
    assert len(listed) == 7


def test_what_has_just_changed_is_listed_again(root: Path, listed: list[str]) -> None:
    """The clocks of file systems are too coarse to tell a change right after."""
    open_index(root)
    listed.clear()
    open_index(root)
    assert len(listed) == 7


def test_a_changed_tar_file_is_listed_again(root: Path, settled: None, listed: list[str]) -> None:
    open_index(root)
    listed.clear()
    tree = Tar({"n1": Tar({"8.jpg": b"8"}), "9.jpg": b"9"})
    write_tree(root, {"c": tree})
    found = contents(open_index(root))
    assert {name: found[f"c/{name}"] for name in flatten(tree)} == flatten(tree)
    assert not any(name.startswith("c/n2") for name in found)
    assert listed == [f"{root}/c.tar/", f"{root}/c.tar/"]  # itself, and the one in it


def test_links(tmp_path: Path, settled: None) -> None:
    for name in ("one", "two"):
        write_tree(tmp_path / name, {f"{name}.jpg": b""})
    root = tmp_path / "root"
    write_tree(root, {"0.jpg": b""})
    link = root / "link"
    link.symlink_to(tmp_path / "one")
    assert ids(open_index(root)) == ["0.jpg", "link/one.jpg"]
    time.sleep(0.02)
    link.unlink()
    link.symlink_to(tmp_path / "two")
    assert ids(open_index(root)) == ["0.jpg", "link/two.jpg"]
    (tmp_path / "two").rename(tmp_path / "three")
    assert ids(open_index(root)) == ["0.jpg"]


def test_a_link_to_a_tar_file_counts_once(tmp_path: Path) -> None:
    root = tmp_path / "root"
    write_tree(root, {"b": Tar({"x.jpg": b"x", "in": Tar({"y.jpg": b"y"})})})
    (root / "a.tar").symlink_to(root / "b.tar")
    assert contents(open_index(root)) == {"a/in/y.jpg": b"y", "a/x.jpg": b"x"}


@pytest.mark.parametrize("file", [stored.NAMES, stored.RUNS, stored.HEADER, stored.CONTAINERS])
def test_a_damaged_index_is_built_again(
    file: str, root: Path, settled: None, caplog: pytest.LogCaptureFixture
) -> None:
    index = open_index(root)
    expected = list(index)
    path = index.folder / file
    del index
    path.write_bytes(path.read_bytes()[:-1])
    assert list(open_index(root)) == expected
    assert [record.levelname for record in caplog.records].count("WARNING") == 1
    assert "is damaged" in caplog.text


def test_an_index_that_nobody_uses_is_removed(root: Path) -> None:
    for number in range(1, 4):
        assert [path.name for path in open_index(root).folder.parent.glob("*-*")] == [
            f"index-{number:06d}"
        ]


def test_an_index_in_use_is_kept(root: Path) -> None:
    first = open_index(root)
    (root / "a/new.jpg").touch()
    second = open_index(root)
    assert len(second) == len(first) + 1
    assert list(ImageIndex(first.folder)) == list(first)
    older = first.folder
    del first
    (root / "a/newer.jpg").touch()
    third = open_index(root)
    assert not older.exists()
    assert len(third) == len(second) + 1
    assert second.folder.exists()
