from __future__ import annotations

import hashlib
import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from detectron2.utils import comm
from torch import nn

from ddep.checkpoint import Checkpointer
from ddep.errors import UserError


class State:
    """The state of a training run."""

    def state_dict(self) -> dict[str, int]:
        return {"iteration": 1}

    def load_state_dict(self, state: dict[str, int]) -> None:
        pass


def make(folder: Path) -> Checkpointer:
    return Checkpointer(nn.Linear(30, 30), str(folder), trainer=State())


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Three checkpoints, the oldest of which has the highest name."""
    for index, name in enumerate(["model_final", "model_0000001", "model_0000003"]):
        make(tmp_path).save(name)
        os.utime(tmp_path / f"{name}.pth", (index, index))
    return tmp_path


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.name.startswith("ddep.")]


def rewrite(path: Path, data: bytes) -> None:
    """Change a file as a bad disk does, without making it newer."""
    times = path.stat()
    path.write_bytes(data)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    rewrite(path, data)


def truncate(path: Path) -> None:
    rewrite(path, path.read_bytes()[:-100])


def replace_by_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def test_sha256sum_can_check_the_checksum(folder: Path) -> None:
    for name in ("model_0000001.pth", "model_final.pth"):
        line = (folder / f"{name}.sha256").read_text()
        assert line == f"{hashlib.sha256((folder / name).read_bytes()).hexdigest()}  {name}\n"
    check = ["sha256sum", "--strict", "-c", "model_final.pth.sha256"]
    assert subprocess.run(check, cwd=folder, capture_output=True).returncode == 0


def test_the_last_checkpoint_is_taken_without_a_warning(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert make(folder).get_checkpoint_file() == str(folder / "model_0000003.pth")
    assert warnings(caplog) == []


@pytest.mark.parametrize(
    ("damage", "has_checksum", "what"),
    [
        (flip, True, "is damaged: its checksum is not that in"),
        (truncate, True, "is damaged: its checksum is not that in"),
        (truncate, False, "cannot be read: it is truncated or not a checkpoint"),
        (Path.unlink, True, "does not exist or is not a file"),
        (replace_by_folder, False, "does not exist or is not a file"),
    ],
)
def test_a_damaged_checkpoint_is_replaced_by_the_newest_valid_one(
    folder: Path,
    caplog: pytest.LogCaptureFixture,
    damage: Callable[[Path], None],
    has_checksum: bool,
    what: str,
) -> None:
    damage(folder / "model_0000003.pth")
    if not has_checksum:
        (folder / "model_0000003.pth.sha256").unlink()
    with caplog.at_level(logging.WARNING):
        assert make(folder).get_checkpoint_file() == str(folder / "model_0000001.pth")
    [warning] = warnings(caplog)
    assert f"model_0000003.pth {what}" in warning
    assert warning.endswith(f"taking {folder / 'model_0000001.pth'} instead")
    # The next one is damaged as well.
    truncate(folder / "model_0000001.pth")
    caplog.clear()
    with caplog.at_level(logging.WARNING):
        assert make(folder).get_checkpoint_file() == str(folder / "model_final.pth")
    [warning] = warnings(caplog)
    assert f"model_0000003.pth {what}" in warning
    assert "model_0000001.pth is damaged" in warning
    truncate(folder / "model_final.pth")
    with pytest.raises(UserError, match=r"has no valid checkpoint \(.*003.*001.*final.*leave"):
        make(folder).get_checkpoint_file()


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"", "last_checkpoint names no file"),
        (b"\n", "last_checkpoint names no file"),
        (b"\x00\x00", "last_checkpoint names no file"),
        (b"\xff\xfe", "last_checkpoint cannot be read (UnicodeDecodeError)"),
        (b"gone.pth", "gone.pth does not exist or is not a file"),
        (b"x" * 5000, "does not exist or is not a file"),
    ],
)
def test_a_damaged_last_checkpoint_file(
    folder: Path, caplog: pytest.LogCaptureFixture, content: bytes, what: str
) -> None:
    (folder / "last_checkpoint").write_bytes(content)
    with caplog.at_level(logging.WARNING):
        assert make(folder).get_checkpoint_file() == str(folder / "model_0000003.pth")
    [warning] = warnings(caplog)
    assert what in warning


def test_without_last_checkpoint_there_is_no_run(folder: Path) -> None:
    (folder / "last_checkpoint").unlink()
    assert not make(folder).has_checkpoint()
    assert make(folder).get_checkpoint_file() == ""


@pytest.mark.parametrize("checksum", [b"", b"\x00" * 80, b"no checksum\n"])
def test_a_damaged_checksum_is_ignored(folder: Path, checksum: bytes) -> None:
    (folder / "model_0000003.pth.sha256").write_bytes(checksum)
    assert make(folder).get_checkpoint_file() == str(folder / "model_0000003.pth")


def test_only_checkpoints_with_a_training_state_are_taken_instead(
    folder: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (folder / "last_checkpoint").write_text("gone.pth")
    torch.save({"model": {"weight": torch.ones(1)}}, folder / "slim.pth")
    (folder / "notes.pth").write_text("none at all")
    with caplog.at_level(logging.WARNING):
        assert make(folder).get_checkpoint_file() == str(folder / "model_0000003.pth")
    [warning] = warnings(caplog)
    assert "slim.pth holds no state of a training run (trainer)" in warning
    assert "notes.pth cannot be read" in warning


def test_an_older_checkpoint_can_be_the_last(folder: Path) -> None:
    (folder / "last_checkpoint").write_text("model_final.pth\n")
    assert make(folder).get_checkpoint_file() == str(folder / "model_final.pth")


def test_all_processes_take_the_checkpoint_of_the_main_process(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run as the second of two processes, whose disk does not have the same files yet."""
    answers: list[tuple[str, str]] = []
    monkeypatch.setattr(comm, "is_main_process", lambda: False)
    monkeypatch.setattr(comm, "all_gather", lambda own: [answers[-1], own])
    (folder / "model_0000003.pth").unlink()
    answers.append(("/run/model_0000003.pth", ""))
    assert make(folder).get_checkpoint_file() == "/run/model_0000003.pth"
    answers.append(("", "nothing is valid"))
    with pytest.raises(UserError, match="nothing is valid"):
        make(folder).get_checkpoint_file()
