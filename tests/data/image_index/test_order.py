"""The records of an index and their order."""

from __future__ import annotations

import os
import pickle
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch.utils.data import DataLoader, Dataset

from ddep.data.image_index import open_index
from tests.data.image_index.trees import Tar, Tree, contents, flatten, ids, write_tree

# Letters below and above the slash, which ends folders' names, and outside ASCII.
names = st.text(alphabet="a!-.0Zé\uffee\U0001f600", min_size=1, max_size=3).filter(
    lambda name: not name.startswith(".") and not name.endswith(".")
)
files = st.dictionaries(names.map("{}.jpg".format), st.binary(max_size=700), max_size=4)


def _folder(children: st.SearchStrategy[Tree]) -> st.SearchStrategy[Tree]:
    """A folder or tar file of files and ``children``."""
    inside = st.builds(
        lambda files, folders: files | folders,
        files,
        st.dictionaries(names, children, max_size=3),
    )
    return inside | inside.map(Tar)


@settings(
    max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(tree=st.recursive(files, _folder, max_leaves=6))
def test_images_come_in_the_order_of_their_paths(tree: Tree) -> None:
    expected = flatten(tree)
    with tempfile.TemporaryDirectory() as folder:
        write_tree(Path(folder, "root"), dict(tree))
        index = open_index(Path(folder, "root"))
        assert ids(index) == sorted(expected)
        assert contents(index) == expected
        for record in index:
            if not record["file_name"].startswith("tar://"):
                assert record["file_name"] == os.path.join(folder, "root", record["image_id"])


@pytest.mark.parametrize("kind", [dict, Tar])
def test_images_among_folders(tmp_path: Path, kind: type[Tree]) -> None:
    """By hand: a folder's name sorts with its slash."""
    inside = kind({"x.jpg": b"x", "b": {"y.jpg": b"yy"}})
    tree = {"a.jpg": b"1", "a": inside, "a-b": inside, "a0.jpg": b"23", "b": kind(), "c.png": b"4"}
    write_tree(tmp_path, {"root": kind(tree)})
    index = open_index(tmp_path / ("root" if kind is dict else "root.tar"))
    assert contents(index) == flatten(tree)
    assert ids(index) == [
        "a-b/b/y.jpg",
        "a-b/x.jpg",
        "a.jpg",
        "a/b/y.jpg",
        "a/x.jpg",
        "a0.jpg",
        "c.png",
    ]


def test_names_that_are_not_text(tmp_path: Path) -> None:
    name = os.fsdecode(b"\xff\xe9.jpg")
    write_tree(tmp_path / "root", {"z\uffff.jpg": b"1", name: b"2", "a.jpg": b"3"})
    index = open_index(tmp_path / "root")
    assert ids(index) == sorted(["z\uffff.jpg", name, "a.jpg"])
    assert contents(index)[name] == b"2"


def test_a_sequence(tmp_path: Path) -> None:
    write_tree(tmp_path / "root", {"a": {f"{i}.jpg": b"" for i in range(10)}, "b.jpg": b""})
    index = open_index(tmp_path / "root")
    everything = list(index)
    assert len(index) == len(everything) == 11
    assert index[-1] == everything[-1] == index[np.int64(10)]
    assert index[3:7] == everything[3:7]
    assert index[::-4] == everything[::-4]
    for wrong in (11, -12):
        with pytest.raises(IndexError):
            index[wrong]
    with pytest.raises(TypeError):
        index["a/0.jpg"]
    everything[0]["image_id"] = "changed"
    assert index[0]["image_id"] == "a/0.jpg"
    assert len(pickle.dumps(index)) < 1000
    assert list(pickle.loads(pickle.dumps(index))) == list(index)


class Ids(Dataset):
    def __init__(self, records) -> None:
        self.records = records

    def __len__(self) -> int:
        return len(self.records)

    def __getitem__(self, index: int) -> str:
        with open(self.records[index]["file_name"], "rb") as file:
            return self.records[index]["image_id"] + file.read().decode()


@pytest.mark.parametrize(("method", "workers"), [("fork", 2), ("spawn", 1)])
@pytest.mark.slow
def test_workers_read_the_same(tmp_path: Path, method: str, workers: int) -> None:
    write_tree(tmp_path / "root", {"a": {f"{i}.jpg": b"x" for i in range(5)}, "b.jpg": b"y"})
    index = open_index(tmp_path / "root")
    loader = DataLoader(Ids(index), None, num_workers=workers, multiprocessing_context=method)
    assert list(loader) == [*(f"a/{i}.jpgx" for i in range(5)), "b.jpgy"]
