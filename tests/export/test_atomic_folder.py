from __future__ import annotations

import os
from pathlib import Path

import pytest

from ddep.errors import UserError
from ddep.export.atomic_folder import atomic_folder
from tests.checkpoint.full_disk import full_disk

FILES = ("one", "two")


def content(folder: Path) -> dict[str, str]:
    return {path.name: path.read_text() for path in folder.iterdir()}


def test_a_folder_appears_at_the_end_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "made" / "model"
    with atomic_folder(str(path), FILES) as folder:
        for name in FILES:
            (Path(folder) / name).write_text(name)
        assert not path.exists()
    assert content(path) == {"one": "one", "two": "two"}
    assert os.listdir(path.parent) == ["model"]


def test_an_error_while_writing_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "model"
    with pytest.raises(ZeroDivisionError), atomic_folder(str(path), FILES) as folder:
        (Path(folder) / "one").write_text("half")
        raise ZeroDivisionError
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("exists", [False, True])
def test_a_full_disk_leaves_the_old_folder(tmp_path: Path, exists: bool) -> None:
    path = tmp_path / "model"
    if exists:
        path.mkdir()
        (path / "one").write_text("old")
    with (
        pytest.raises(UserError, match=r"model cannot be written: File too large; free"),
        full_disk(1000),
        atomic_folder(str(path), FILES, overwrite=True) as folder,
        open(Path(folder) / "one", "wb", buffering=0) as file,
    ):
        while True:
            file.write(bytes(600))
    assert os.listdir(tmp_path) == (["model"] if exists else [])
    assert not exists or content(path) == {"one": "old"}


def test_a_folder_of_such_files_is_replaced_on_request(tmp_path: Path) -> None:
    path = tmp_path / "model"
    path.mkdir()
    (path / "one").write_text("old")
    (path / "two").write_text("old")
    with pytest.raises(UserError, match="exists; choose another name or add --overwrite"):
        atomic_folder(str(path), FILES).__enter__()
    with atomic_folder(str(path), FILES, overwrite=True) as folder:
        (Path(folder) / "one").write_text("new")
    assert content(path) == {"one": "new"}
    assert os.listdir(tmp_path) == ["model"]


def test_other_folders_are_never_replaced(tmp_path: Path) -> None:
    path = tmp_path / "home"
    path.mkdir()
    (path / "letter").write_text("dear")
    with pytest.raises(UserError, match="home holds letter, which no conversion has written"):
        atomic_folder(str(path), FILES, overwrite=True).__enter__()
    with pytest.raises(UserError, match="letter is a file; name a folder"):
        atomic_folder(str(path / "letter"), FILES, overwrite=True).__enter__()
    assert content(path) == {"letter": "dear"}


def test_a_folder_that_cannot_be_created_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    path = tmp_path / "file" / "model"
    with (
        pytest.raises(UserError, match=r"file/model cannot be written: (Not a dir|File exists)"),
        atomic_folder(str(path), FILES),
    ):
        pass
