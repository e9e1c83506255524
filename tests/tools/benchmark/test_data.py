from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
from PIL import Image

import data_measurement
from data_jobs import MEASURED

ROOT = Path(__file__).parents[3]
TINY = ["--sizes", "48x40", "--count", "1", "--seconds", "0", "--workers"]


def time_data(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    """Run the tool in this process, with few images for each worker."""
    monkeypatch.setattr(data_measurement, "BATCH", 1)
    monkeypatch.setattr(sys, "argv", ["tools/benchmark/data.py", *map(str, words)])
    runpy.run_path(str(ROOT / "tools" / "benchmark" / "data.py"), run_name="__main__")


def table(text: str) -> list[list[str]]:
    lines = [line for line in text.splitlines() if line.startswith("| ")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_output_is_what_is_printed(monkeypatch, tmp_path, capsys):
    path = tmp_path / "benchmarks.md"
    path.write_text("# Times\n\n## Others\n\nnone\n", "utf-8")
    mappers = ["ddep_denoising", "mask_former_semantic", "mask_former_instance"]
    time_data(monkeypatch, *TINY, 1, "--mappers", *mappers, "--output", path)
    printed = capsys.readouterr().out
    assert path.read_text("utf-8") == f"# Times\n\n## Others\n\nnone\n\n{printed}"
    assert re.search(r"^## Data, .+$", printed, re.MULTILINE)
    assert re.search(r"^- images of 48x40: 1, [\d.]+ kB each on average$", printed, re.MULTILINE)
    head, _, *rows = table(printed)
    assert head[3:6] == ["this project", "torchvision, Pillow images", "torchvision, tensors"]
    assert [row[:3] for row in rows] == [
        ["ddep_denoising", "48x40", "—"],
        ["ddep_denoising", "48x40", "1"],
        ["mask_former_semantic", "48x40", "—"],
        ["mask_former_instance", "48x40", "—"],
    ]
    for row in rows:
        assert all(float(rate) > 0 for rate in row[3:6])
        median, low, high = map(
            float, re.fullmatch(r"([\d.]+)× \(([\d.]+)–([\d.]+)\)", row[6]).groups()
        )
        assert 0 < low <= median <= high


def test_images_from_a_folder(monkeypatch, tmp_path, capsys):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.jpg")
    time_data(monkeypatch, *TINY, "--images", tmp_path)
    _, _, row = table(capsys.readouterr().out)
    assert row[:3] == ["ddep_denoising", "own", "—"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--sizes", "500"], "--sizes has '500'; expected WIDTHxHEIGHT in pixels"),
        (["--sizes", "0x5"], "--sizes has '0x5'; expected WIDTHxHEIGHT in pixels"),
        (["--mappers", "none"], f"--mappers has 'none'; expected {', '.join(MEASURED)}"),
        (["--count", "0"], "--count is 0; expected 1 or more"),
        (["--seconds", "nan"], "--seconds is nan; expected 0 or more"),
        (["--workers", "0"], "--workers has 0; expected 1 to "),
        (["--workers", "100000"], "--workers has 100000; expected 1 to "),
        (["--images", "no-such-folder"], "no-such-folder does not exist"),
        (["--images", ".", "--mappers", "detr_panoptic"], "a folder of images has no labels"),
        (["--output", "no-such-folder/a.md"], "there is no folder no-such-folder"),
    ],
)
def test_mistakes_are_one_line(monkeypatch, words, message):
    with pytest.raises(SystemExit) as end:
        time_data(monkeypatch, *words)
    assert end.value.code.startswith("error: ")
    assert message in end.value.code
    assert "\n" not in end.value.code
