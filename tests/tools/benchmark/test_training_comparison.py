"""The comparison of the training step with other implementations, on the smallest model."""

from __future__ import annotations

import importlib.util
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest

from tests.engine.tiny_runs import one_thread, write_config  # noqa: F401
from training_comparison import Comparison, Measurements, report
from training_floor import Floor
from training_peers import _shared_keys

ROOT = Path(__file__).parents[3]
TOOL = "tools/benchmark/training.py"
OPTIONS = ["--image-size", "64", "--inference-size", "64", "--rounds", "1", "--threads", "1"]
MODEL = {
    "MODEL__META_ARCHITECTURE": "MaskFormer",
    "MODEL__SEM_SEG_HEAD__NUM_CLASSES": 133,
    "MODEL__MASK_FORMER__TEST": {"PANOPTIC_ON": True, "INSTANCE_ON": True},
    # Losses vary little with the points: there are many, and classes alone decide the matching.
    "MODEL__MASK_FORMER__TRAIN_NUM_POINTS": 20000,
    "MODEL__MASK_FORMER__CLASS_WEIGHT": 200.0,
    "DATASETS__TRAIN": ["coco_2017_train_panoptic"],
}


def run(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    """Run the tool in this process; its workers are other processes."""
    monkeypatch.setattr(sys, "argv", [TOOL, *OPTIONS, *map(str, words)])
    runpy.run_path(str(ROOT / TOOL), run_name="__main__")


def table(text: str) -> dict[str, list[str]]:
    """The cells of each implementation in the first table."""
    lines = text[text.index("| ---") :].splitlines()[1:]
    rows = [line.strip("| ").split(" | ") for line in lines[: lines.index("")]]
    return {name: cells for name, *cells in rows}


@pytest.mark.slow
def test_beside_hugging_face(tmp_path: Path) -> None:
    output = tmp_path / "page.md"
    config = write_config(tmp_path, "finetune", **MODEL)
    arguments = ["--config-file", config, "--peer", "huggingface", "--output", output]
    # As a command: other tests register models in this process, whose config keys a worker lacks.
    printed = subprocess.check_output(
        [sys.executable, TOOL, *OPTIONS, *map(str, arguments)], text=True, cwd=ROOT
    )
    page = output.read_text()
    assert page in printed
    assert re.match(r"## Beside other implementations, float32, .*, 1 thread\n", page)
    training, inference = page.split("### ")[1:]
    names = ["this project", "Hugging Face"]
    assert list(table(training)) == names
    assert list(table(inference)) == [*names, "Hugging Face, logits only"]
    for cells in (*table(training).values(), *table(inference).values()):
        assert float(cells[0]) >= float(cells[1]) > 0
        assert 100 < float(cells[3]) < 10000  # MiB of a process that imported torch
    # Weights, images and annotations are equal.
    ours, theirs = (
        [float(loss) for loss in cells[-1].split(" to ")] for cells in table(training).values()
    )
    assert ours == pytest.approx(theirs, abs=0.03)
    assert "- this project runs its operators" in training
    assert re.search(r"alone: [\d.]+ ms, \d+% of its median; [\d.]+ GFLOP", training)


def test_report() -> None:
    losses = [170.931, 171.2]
    measurements = {
        "ddep": Measurements([0.6, 0.5, 0.9], 2 * 2**30, losses, ""),
        "mask2former": Measurements([1.5], 4 * 2**30, losses, "its operator"),
        "huggingface": Measurements([1.2], 5 * 2**30, losses, ""),
        "huggingface-logits": Measurements([0.1], 2**20, losses, ""),
    }
    comparison = Comparison(measurements, Floor(0.3, flops=60 * 10**9))
    text = "\n".join(report({"training": comparison}, {"training": "2 images"}))
    assert text.startswith("### Training, 2 images\n")
    rows = table(text)
    assert rows["this project"] == ["600", "500", "1.00×", "2048", "1.00×", "170.93 to 171.20"]
    assert rows["Mask2Former"][:5] == ["1500", "1500", "2.50×", "4096", "2.00×"]
    assert "faster peer's time: 0.50\n" in text  # not of the logits'
    assert "smaller peer's memory: 0.50\n" in text
    assert "alone: 300 ms, 50% of its median; 60.0 GFLOP at 200 GFLOP/s\n" in text
    assert "- its operator" in text


def test_shared_keys() -> None:
    ours = {"A": {"B": 1, "C": 2}, "D": [3], "E": {"F": 4}}
    assert _shared_keys(ours, {"A": {"B": 0, "G": 0}, "D": [0]}) == {"A": {"B": 1}, "D": [3]}


@pytest.mark.slow
def test_a_peer_that_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "checkout" / "mask2former"
    package.mkdir(parents=True)
    (package / "__init__.py").touch()
    (package / "config.py").touch()
    config = write_config(tmp_path, "finetune", **MODEL)
    words = ["--config-file", config, "--peer", f"mask2former={package.parent}"]
    message = r"^error: Mask2Former ended with status 1: ImportError: cannot import name [^\n]*$"
    with pytest.raises(SystemExit, match=message):
        run(monkeypatch, *words)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--peer", "detr"], "--peer is 'detr'; expected mask2former=PATH or huggingface"),
        (
            ["--peer", "mask2former=nowhere"],
            "--peer mask2former=nowhere: there is no mask2former/config.py; expected a checkout of",
        ),
        (["--peer", "mask2former"], "--peer mask2former=: there is no mask2former/config.py"),
        (["--peer", "huggingface", "--peer", "huggingface"], "--peer huggingface is given twice"),
        (["--peer", "huggingface", "--inference-size", "0"], "--inference-size is 0; expected 1"),
        (
            ["--peer", "huggingface", "--options", "compile"],
            "--options and --peer exclude each other; give one of them",
        ),
        (
            ["--precision", "bfloat16"],
            "--precision needs --peer; without it give --options bfloat16",
        ),
        (
            ["--peer", "huggingface", "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "BasePixelDecoder"],
            "PIXEL_DECODER_NAME is BasePixelDecoder; --peer compares Mask2Former",
        ),
    ],
)
def test_mistakes(
    words: list[str], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = write_config(tmp_path, "finetune", **MODEL)
    with pytest.raises(SystemExit, match=re.escape(message)):
        run(monkeypatch, "--config-file", config, *words)


def test_transformers_that_are_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "transformers" else find(name)
    )
    config = write_config(tmp_path, "finetune", **MODEL)
    with pytest.raises(SystemExit, match="--peer huggingface: transformers is not installed"):
        run(monkeypatch, "--config-file", config, "--peer", "huggingface")
