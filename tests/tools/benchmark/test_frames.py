from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from tests.data.videos import write_video

ROOT = Path(__file__).parents[3]


def measure(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, folder: Path) -> None:
    """Run the tool in this process, with few reads."""
    monkeypatch.setenv("DDEP_CACHE", str(tmp_path / "cache"))
    words = ["tools/benchmark/frames.py", "--reads", "2", "--videos", str(folder)]
    monkeypatch.setattr(sys, "argv", words)
    runpy.run_path(str(ROOT / "tools" / "benchmark" / "frames.py"), run_name="__main__")


def test_a_line_for_each_video(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.mp4", "b.mp4"):
        write_video(tmp_path / "in" / name, frames=25)
    measure(monkeypatch, tmp_path, tmp_path / "in")
    rows = [line.split(" | ") for line in capsys.readouterr().out.splitlines() if ".mp4," in line]
    assert [row[:2] for row in rows] == [["| a.mp4, 48x32", "25"], ["| b.mp4, 48x32", "25"]]
    assert all(float(cell.split()[0]) >= 0 for row in rows for cell in row[2:])
    assert all(len(row) == 8 for row in rows)


def test_a_folder_without_videos(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        measure(monkeypatch, tmp_path, tmp_path)
    assert "has no video in it" in f"{end.value.code}{capsys.readouterr().err}"
