"""The benchmark of the training step, on the smallest model."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from tests.engine.tiny_runs import one_thread, write_config  # noqa: F401
from training_memory import SavedTensors

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
PRETRAINING = {"MODEL__META_ARCHITECTURE": "DenoisingPretrainer"}
FINE_TUNING = {
    "MODEL__META_ARCHITECTURE": "MaskFormer",
    "MODEL__SEM_SEG_HEAD__NUM_CLASSES": 3,
}


def time_training(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    arguments = ["--image-size", 64, "--rounds", 2, *words]
    monkeypatch.setattr(sys, "argv", ["tools/benchmark/training.py", *map(str, arguments)])
    runpy.run_path(str(ROOT / "tools" / "benchmark" / "training.py"), run_name="__main__")


def rows(text: str) -> dict[str, list[str]]:
    """The table's cells by option."""
    cells = [line.strip("| ").split(" | ") for line in text.splitlines() if line.startswith("| ")]
    return {name: values for name, *values in cells[2:]}


def test_saved_tensors_are_counted_once_and_without_weights() -> None:
    linear = nn.Linear(8, 16)
    inputs = torch.randn(4, 8)
    with SavedTensors(without=linear.parameters()) as saved:
        hidden = linear(inputs)  # keeps its input
        hidden.sigmoid()  # keeps its result
        hidden.view(8, 8).square()  # keeps its input
        hidden.exp().square()  # keeps the result of exp, twice
        with torch.no_grad():
            hidden.exp()
    assert saved.bytes == 4 * (4 * 8 + 3 * 4 * 16)


def test_pretraining(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "page.md"
    config = write_config(tmp_path, "pretrain", **PRETRAINING)
    names = ["frozen-backbone", "checkpoint-swin", "checkpoint-both", "channels-last", "bfloat16"]
    words = ["--options", *names, "--output", output, "MODEL.SWIN.DEPTHS", "[2, 2, 2, 2]"]
    time_training(monkeypatch, "--config-file", config, *words)
    printed = capsys.readouterr().out
    assert output.read_text() in printed
    assert re.search(r"^## Pretraining step, .* threads?$", printed, re.MULTILINE)
    table = rows(printed)
    assert list(table) == ["baseline", *names]
    assert table["baseline"][1] == table["baseline"][3] == "1.00×"
    assert all(float(images_per_second) > 0 for images_per_second, *_ in table.values())
    memory = {name: float(values[2]) for name, values in table.items()}
    assert memory["frozen-backbone"] < 0.8 * memory["baseline"]
    assert memory["checkpoint-both"] < memory["checkpoint-swin"] < memory["baseline"]


def test_fine_tuning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    config = write_config(tmp_path, "finetune", **FINE_TUNING)
    words = ["--options", "checkpoint-pixel-decoder", "channels-last"]
    time_training(monkeypatch, "--config-file", config, "--batch", 1, *words)
    table = rows(capsys.readouterr().out)
    assert list(table) == ["baseline", "checkpoint-pixel-decoder", "channels-last"]
    assert float(table["checkpoint-pixel-decoder"][2]) < float(table["baseline"][2])


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds", "0"], "--rounds is 0; expected 1 or more"),
        (["--image-size", "0"], "--image-size is 0; expected 1 or more"),
        (["--options", "faster"], "--options has 'faster'; with this config and device expected"),
        (["--options", "float16"], "--options has 'float16'; with this config and device expected"),
        (["--output", "nowhere/page.md"], "--output nowhere/page.md: there is no folder nowhere"),
    ],
)
def test_mistakes(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = write_config(tmp_path, "pretrain", **PRETRAINING)
    with pytest.raises(SystemExit, match=re.escape(message)):
        time_training(monkeypatch, "--config-file", config, *words)
