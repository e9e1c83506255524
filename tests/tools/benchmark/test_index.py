from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]


def measure(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """Run the tool in this process."""
    monkeypatch.setattr(sys, "argv", ["tools/benchmark/index.py", *words])
    runpy.run_path(str(ROOT / "tools" / "benchmark" / "index.py"), run_name="__main__")


def test_a_table_is_printed(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure(monkeypatch, "--images", "2500", "--per-folder", "100", "--workers", "2")
    printed = capsys.readouterr().out
    assert "tools/benchmark/index.py --images 2500 --per-folder 100 --workers 2`" in printed
    [row] = re.findall(r"^\| 2,500 .*$", printed, re.MULTILINE)
    values = [value.strip() for value in row.strip("|").split("|")]
    assert values[1] == "25"
    assert all(re.fullmatch(r"-?[\d.]+ (s|ms|MiB)", value) for value in values[2:])


@pytest.mark.parametrize("option", ["--images", "--per-folder", "--workers"])
def test_mistakes_are_one_line(
    option: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        measure(monkeypatch, option, "0")
    assert end.value.code == f"error: {option} is 0; expected 1 or more"
    assert "Traceback" not in capsys.readouterr().err
