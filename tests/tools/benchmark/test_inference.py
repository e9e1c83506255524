"""The benchmark of inference, on the smallest model."""

from __future__ import annotations

import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.tiny_runs import write_config

ROOT = Path(__file__).parents[3]
TOOL = "tools/benchmark/inference.py"
MODEL = {
    "MODEL__META_ARCHITECTURE": "MaskFormer",
    "MODEL__SEM_SEG_HEAD__NUM_CLASSES": 133,
    "MODEL__MASK_FORMER__TEST": {"PANOPTIC_ON": True, "INSTANCE_ON": True},
    "DATASETS__TRAIN": ["coco_2017_train_panoptic"],
}


@pytest.mark.slow
def test_table(tmp_path: Path) -> None:
    """A variant, and a peer that fails, whose row is empty."""
    output = tmp_path / "page.md"
    package = tmp_path / "checkout" / "mask2former"
    package.mkdir(parents=True)
    (package / "config.py").touch()
    words = ["--sizes", "72x64", "--batches", "2", "--rounds", "1", "--threads", "1"]
    words += ["--variants", "onnx", "--peer", f"mask2former={package.parent}"]
    words += ["--output", output]
    words += ["--config-file", write_config(tmp_path, "finetune", **MODEL)]
    # As a command: other tests register models in this process, whose config keys a worker lacks.
    printed = subprocess.check_output([sys.executable, TOOL, *map(str, words)], text=True, cwd=ROOT)
    assert output.read_text() == printed
    assert re.match(r"## Inference, .*, 1 thread\n", printed)
    rows = [line.strip("| ").split(" | ") for line in printed.splitlines() if line[:2] == "| "]
    assert [row[:4] for row in rows[2:]] == [
        ["finetune", "72x64", "2", name] for name in ("float32", "onnx", "Mask2Former")
    ]
    baseline, onnx, failed = (row[4:] for row in rows[2:])
    assert baseline[3] == "1.00×"
    for cells in (baseline, onnx):
        rate, network, post_processing, of_baseline, memory = map(
            float, (c.strip("×") for c in cells)
        )
        assert network + post_processing == pytest.approx(1000 / rate, rel=0.02)
        assert min(network, post_processing, of_baseline) > 0
        assert 100 < memory < 10000  # MiB of a process that imported torch
    assert failed == ["—"] * 5
    assert re.search(
        r"^- finetune, 72x64, 2, Mask2Former: Mask2Former ended with status 1: .*Error",
        printed,
        re.M,
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--rounds", "0"], "--rounds has 0; expected 1 or more"),
        (["--batches", "1", "0"], "--batches has 0; expected 1 or more"),
        (["--sizes", "512"], "--sizes has '512'; expected WIDTHxHEIGHT in pixels"),
        (["--variants", "faster"], "--variants has 'faster'; expected some of bfloat16, channels"),
        (["--output", "nowhere/page.md"], "--output nowhere/page.md: there is no folder nowhere"),
        (
            ["--opts", "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "BasePixelDecoder"],
            "PIXEL_DECODER_NAME is BasePixelDecoder",
        ),
    ],
)
def test_mistakes(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, "finetune", **MODEL)
    monkeypatch.setattr(sys, "argv", [TOOL, "--config-file", config, *words])
    with pytest.raises(SystemExit, match=re.escape(message)):
        runpy.run_path(str(ROOT / TOOL), run_name="__main__")
