from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from ddep.checkpoint.writing import atomic_write
from ddep.errors import UserError
from tests.checkpoint.full_disk import full_disk


def test_a_file_is_replaced_at_the_end_and_not_before(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with atomic_write(str(path)) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["file"]
    umask = os.umask(0)
    os.umask(umask)
    assert path.stat().st_mode & 0o777 == 0o666 & ~umask


def test_an_error_on_the_way_leaves_the_old_file_alone(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"old")
    with pytest.raises(ZeroDivisionError), atomic_write(str(path)) as file:
        file.write(b"half of the n")
        raise ZeroDivisionError
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["file"]


@pytest.mark.parametrize("size", [10_000, 1_000_000])
def test_a_full_disk_leaves_the_old_file_alone(tmp_path: Path, size: int) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b"old")
    with (
        pytest.raises(UserError, match=r"model\.pth cannot be written: File too large; free"),
        full_disk(20_000),
        atomic_write(str(path)) as file,
    ):
        torch.save({"weight": torch.ones(size)}, file)
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.pth"]


def test_an_error_that_is_not_the_disks_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), atomic_write(str(tmp_path / "file")):
        raise RuntimeError("mine")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"missing/file cannot be written: No such file"),
        atomic_write(str(tmp_path / "missing" / "file")),
    ):
        pass
