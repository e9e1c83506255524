from __future__ import annotations

import runpy
import sys
from pathlib import Path

import pytest

from tests.engine.tiny_runs import per_pixel_config, shapes_root, write_images
from tests.inference.tiny_models import write_run

TOOL = Path(__file__).parents[2] / "tools" / "pseudo-labels.py"


def call(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    monkeypatch.setattr(sys, "argv", [TOOL.name, *map(str, words)])
    runpy.run_path(str(TOOL), run_name="__main__")


def test_the_tool_says_what_it_wrote_and_what_it_could_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    images, out = write_images(tmp_path / "images", 2), tmp_path / "out"
    (images / "0.png").write_bytes(b"no image")
    with shapes_root(tmp_path):
        run = write_run(tmp_path / "run", per_pixel_config(tmp_path))
        name = f"images:{images}"
        call(monkeypatch, "--model", run, "--dataset", name, "--output", out, "--flip")
        printed = capsys.readouterr().out.splitlines()
        assert printed == [
            f"{images / '0.png'} cannot be read and has no pseudo-label",
            f"pseudo-labels of {name} in {out}",
        ]
        with pytest.raises(SystemExit, match="--dataset: unknown data set 'night'"):
            call(monkeypatch, "--model", run, "--dataset", "night", "--output", out)
