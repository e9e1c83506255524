from __future__ import annotations

import errno
import os
import signal
from pathlib import Path

import pytest
import torch

from ddep.errors import UserError
from ddep.files import atomic_write, remove_leftovers
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


def test_an_error_while_writing_leaves_the_old_file_alone(tmp_path: Path) -> None:
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


def test_other_errors_are_raised_unchanged(tmp_path: Path) -> None:
    with pytest.raises(RuntimeError, match="mine"), atomic_write(str(tmp_path / "file")):
        raise RuntimeError("mine")


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"missing/file cannot be written: No such file"),
        atomic_write(str(tmp_path / "missing" / "file")),
    ):
        pass


@pytest.mark.parametrize("durable", [True, False])
def test_a_disk_that_fills_up_in_the_middle(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, durable: bool
) -> None:
    path = tmp_path / "model.pth"
    path.write_bytes(b"old")
    with (
        pytest.raises(UserError, match=r"model\.pth cannot be written: No space left on device"),
        open("/dev/full", "wb", buffering=0) as full,
        atomic_write(path, durable=durable) as file,
    ):
        file.write(b"half of the n")
        full.write(b"ew")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.pth"]

    def no_room(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    # Network disks report it only now.
    monkeypatch.setattr(os, "fsync", no_room)
    with pytest.raises(UserError, match="No space left"), atomic_write(path) as file:
        file.write(b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["model.pth"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    with (
        pytest.raises(UserError, match=r"/proc/file cannot be written: \w.*; free space or choose"),
        atomic_write("/proc/file"),
    ):
        pass
    (tmp_path / "file").touch()
    with (
        pytest.raises(UserError, match=r"file/model\.pth cannot be written: Not a directory"),
        atomic_write(tmp_path / "file" / "model.pth"),
    ):
        pass


def test_a_folder_that_disappears_meanwhile(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    with (
        pytest.raises(UserError, match=r"run/model\.pth cannot be written: No such file"),
        atomic_write(folder / "model.pth") as file,
    ):
        os.remove(file.name)
        folder.rmdir()
    assert not folder.exists()


def test_only_leftovers_of_killed_processes_are_removed(tmp_path: Path) -> None:
    pid = os.fork()
    if pid == 0:
        with atomic_write(tmp_path / "model_final.pth") as file:
            file.write(b"half")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)
    assert os.waitpid(pid, 0)[1] == signal.SIGKILL
    [leftover] = os.listdir(tmp_path)
    assert leftover.startswith(".model_final.pth.")
    others = [".model_final.pth.tmp", "model.pth.12.tmp", ".events.12.tmp.bak", ".bashrc"]
    for name in others:
        (tmp_path / name).touch()
    (tmp_path / ".video.mp4.12.tmp.mp4").touch()  # of new_video
    (tmp_path / ".folder.12.tmp").mkdir()
    with atomic_write(tmp_path / "model_0000001.pth") as file:
        remove_leftovers(str(tmp_path))
        file.write(b"whole")
    assert sorted(os.listdir(tmp_path)) == sorted([*others, ".folder.12.tmp", "model_0000001.pth"])
    assert (tmp_path / "model_0000001.pth").read_bytes() == b"whole"
