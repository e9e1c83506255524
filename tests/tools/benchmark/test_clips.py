from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

from tests.engine.tiny_runs import shapes_config, shapes_root, video_config

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


def measure(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    """Run the tool in this process, which measures in others."""
    folder = ROOT / "tools" / "benchmark"
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.setattr(sys, "argv", ["tools/benchmark/clips.py", *map(str, words)])
    runpy.run_path(str(folder / "clips.py"), run_name="__main__")


def test_tables_are_printed_and_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with shapes_root(tmp_path):
        config = video_config(tmp_path)
    lengths = ("--training", 1, "--prediction", 3)
    words = ("--config-file", config, "--threads", 1, "--size", "64x48", *lengths)
    page = tmp_path / "page.md"
    measure(monkeypatch, *words, "--output", page)
    printed = capsys.readouterr().out
    assert page.read_text() == printed
    rows = re.findall(r"^\| (\d+) \| (\d+) \| (-?[\d.]+)? \|$", printed, re.MULTILINE)
    assert [int(frames) for frames, *_ in rows] == [1, 3]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--prediction", 0), "--prediction has 0; expected 1 or more"),
        (("--size", "64"), "--size has '64'; expected WIDTHxHEIGHT"),
    ],
)
def test_mistakes_are_one_line(
    words: tuple[object, ...], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as end:
        measure(monkeypatch, *words)
    assert str(end.value.code).startswith(f"error: {message}")


def test_other_models_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(SystemExit) as end:
        measure(monkeypatch, "--config-file", shapes_config(tmp_path))
    assert "META_ARCHITECTURE is MaskFormer; expected VideoMaskFormer" in str(end.value.code)
