from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[3]


def measure(monkeypatch: pytest.MonkeyPatch, *words: str) -> None:
    """Run the tool in this process."""
    monkeypatch.setattr(sys, "argv", ["tools/benchmark/tracking.py", *words])
    runpy.run_path(str(ROOT / "tools" / "benchmark" / "tracking.py"), run_name="__main__")


@pytest.mark.slow
def test_memory_does_not_grow_with_the_video(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    measure(monkeypatch, "--frames", "20", "120", "--size", "160")
    printed = capsys.readouterr().out
    assert "tools/benchmark/tracking.py --frames 20 120 --size 160`" in printed
    short, long = re.findall(r"^\| (?:20|120) .*$", printed, re.MULTILINE)
    peaks = [int(re.search(r"(\d+) MiB", row)[1]) for row in (short, long)]
    # The masks of 15 queries in 100 frames alone are 37 MiB.
    assert peaks[1] < peaks[0] + 30


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--frames", "0"], "--frames is 0; expected 1 or more"),
        (["--size", "-1"], "--size is -1; expected 1 or more"),
        (
            ["--config-file", "configs/demo/shapes_panoptic.yaml"],
            "configs/demo/shapes_panoptic.yaml has no model that follows objects",
        ),
    ],
)
def test_mistakes_are_one_line(
    words: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SystemExit) as end:
        measure(monkeypatch, *words)
    assert message in str(end.value.code)
