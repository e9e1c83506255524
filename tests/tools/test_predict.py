from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--input", "a.mp4", "b.png"], "--input has images and the video a.mp4"),
        (["--input", "a.mp4", "--attention"], "--attention takes images, not a.mp4"),
        (["--input", "a.png", "--attention-at", "0,0", "--resume"], "--save and --resume are not"),
        (["--input", "a.png", "--track"], "--track is for videos"),
        (["--input", "a.png", "--frame-rate", "0"], "--frame-rate is 0.0; expected up to 1000"),
    ],
)
def test_options_that_exclude_each_other_are_refused_before_a_model_is_read(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    argv = ["predict.py", "--model", "absent", "--output", str(tmp_path / "out"), *words]
    monkeypatch.setattr(sys, "argv", argv)
    with pytest.raises(SystemExit) as end:
        runpy.run_path(str(ROOT / "tools" / "predict.py"), run_name="__main__")
    assert message in str(end.value)
    assert not (tmp_path / "out").exists()
