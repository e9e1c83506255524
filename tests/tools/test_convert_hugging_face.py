"""tools/convert-pretrained.py from and to Hugging Face, as users call it."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
import torch
import yaml
from safetensors.torch import load_file
from transformers import Mask2FormerForUniversalSegmentation, Mask2FormerImageProcessor

from tests.huggingface_map import randomise_model, small_config

TOOL = Path(__file__).parents[2] / "tools" / "convert-pretrained.py"


def convert(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    """Run the tool in this process."""
    monkeypatch.setattr(sys, "argv", [TOOL.name, *map(str, words)])
    runpy.run_path(str(TOOL), run_name="__main__")


@pytest.fixture
def theirs(tmp_path: Path) -> Path:
    """A folder with a model of Hugging Face."""
    model = Mask2FormerForUniversalSegmentation(small_config(decoder_layers=2))
    randomise_model(model)
    model.save_pretrained(tmp_path / "theirs")
    Mask2FormerImageProcessor(image_mean=[0.5] * 3).save_pretrained(tmp_path / "theirs")
    return tmp_path / "theirs"


def config_file(output: str, path: Path) -> Path:
    """Write the config keys of the tool's output into a YAML file."""
    lines = output.split("config keys that fit")[1].split("wrote")[0].splitlines()[1:]
    config: dict[str, object] = {"VERSION": 2}
    for line in lines:
        key, text = line.strip().split(" ", 1)
        node = config
        *parents, last = key.split(".")
        for parent in parents:
            node = node.setdefault(parent, {})
        node[last] = yaml.safe_load(text)
    path.write_text(yaml.safe_dump(config))
    return path


@pytest.mark.parametrize("single_file", [None, "model.safetensors", "pytorch_model.bin"])
def test_round_trip(
    theirs: Path,
    single_file: str | None,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    weights = load_file(theirs / "model.safetensors")
    if single_file == "pytorch_model.bin":
        torch.save(weights, theirs / single_file)
    source = theirs / single_file if single_file else theirs
    convert(monkeypatch, source, tmp_path / "ours.pth", "--from", "hf-mask2former")
    output = capsys.readouterr().out
    assert "format: hf-mask2former" in output
    assert "missing, stays as initialised (0)" in output
    assert "MODEL.PIXEL_MEAN [127.5, 127.5, 127.5]" in output
    cfg = config_file(output, tmp_path / "config.yaml")

    folder = tmp_path / "back"
    convert(monkeypatch, tmp_path / "ours.pth", folder, "--to", "hf", "--config-file", cfg)
    back = load_file(folder / "model.safetensors")
    assert back.keys() == weights.keys()
    assert all(torch.equal(back[name], tensor) for name, tensor in weights.items())
    assert json.loads((folder / "config.json").read_text())["model_type"] == "mask2former"


def test_mistakes(
    theirs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    convert(monkeypatch, theirs, tmp_path / "ours.pth")
    for words, message in [
        (["--to", "hf"], r"--to hf needs the config"),
        (["--to", "hf", "--from", "swin"], "--from has no meaning with --to hf"),
    ]:
        with pytest.raises(SystemExit) as end:
            convert(monkeypatch, tmp_path / "ours.pth", tmp_path / "out", *words)
        assert message in f"{end.value.code} {capsys.readouterr().err}"
    (theirs / "config.json").write_text("{")
    with pytest.raises(SystemExit, match=r"^error: .*config\.json cannot be read"):
        convert(monkeypatch, theirs, tmp_path / "again.pth")
    (theirs / "model.safetensors").unlink()
    with pytest.raises(SystemExit, match=r"^error: .*theirs is a folder without"):
        convert(monkeypatch, theirs, tmp_path / "again.pth")
    assert sorted(p.name for p in tmp_path.iterdir()) == ["ours.pth", "theirs"]
