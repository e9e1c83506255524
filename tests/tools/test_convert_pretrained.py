from __future__ import annotations

import json
import pickle
import re
import runpy
import sys
from collections import Counter
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone, build_model
from safetensors.torch import save_file
from torch import nn

from ddep.checkpoint import read_checkpoint
from ddep.checkpoint.groups import group_of
from ddep.checkpoint.loading import load_weights
from ddep.config import add_ddep_config
from ddep.modeling.backbone import D2SwinTransformer
from ddep.tasks import load_config
from tests.engine.tiny_runs import write_config

ROOT = Path(__file__).parents[2]
RESNET18 = torchvision.models.resnet18().state_dict()


def convert(monkeypatch: pytest.MonkeyPatch, *words: object) -> None:
    """Run the tool in this process."""
    monkeypatch.setattr(sys, "argv", ["convert-pretrained.py", *map(str, words)])
    runpy.run_path(str(ROOT / "tools" / "convert-pretrained.py"), run_name="__main__")


def fails(monkeypatch: pytest.MonkeyPatch, message: str, *words: object) -> None:
    with pytest.raises(SystemExit) as end:
        convert(monkeypatch, *words)
    assert re.search(f"^error: .*{message}", end.value.code)


def randomise(model: nn.Module) -> None:
    """Let every parameter matter."""
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.eval()


@torch.no_grad()
def test_an_original_swin_gives_the_same_features(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    """The printed keys and the written file give the same model."""
    swin = D2SwinTransformer(embed_dim=16, depths=(2, 2, 3, 1), num_heads=(1, 2, 4, 8))
    randomise(swin)
    state = {n: t for n, t in swin.state_dict().items() if not re.match(r"norm\d\.", n)}
    state["norm.weight"] = state["head.weight"] = torch.ones(2)
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    source, target = tmp_path / "swin.pth", tmp_path / "out.pth"
    torch.save({"model": state}, source)
    convert(monkeypatch, source, target, "--verbose")
    output = capsys.readouterr().out
    assert output.startswith("format: swin\n")
    rows = [line.split() for line in output.splitlines()[1:6]]
    assert rows[0] == ["loaded", "resized", "missing", "unused"]
    assert rows[2] == ["backbone", str(len(state) - 3), "0", "8", "0"]
    assert rows[3] == ["head", "0", "0", "0", "1"]
    assert rows[4] == ["other", "0", "0", "0", "2"]
    assert "  patch_embed.proj.weight -> backbone.patch_embed.proj.weight\n" in output
    assert re.search(r"missing, stays as initialised \(8\):\n  backbone\.norm0\.weight", output)
    assert re.search(r"unused \(3\):\n  norm\.weight\n  head\.weight\n  layers\.0\.b", output)

    keys = output.split("config keys that fit")[1].split("wrote")[0]
    pairs = re.findall(r"^  ([A-Z0-9_.]+) (.+)$", keys, re.MULTILINE)
    cfg = get_cfg()
    add_ddep_config(cfg)
    cfg.merge_from_list([word for pair in pairs for word in pair])
    model = nn.ModuleDict({"backbone": build_backbone(cfg)}).eval()
    report = load_weights(model, read_checkpoint(str(target))["model"], str(target))
    assert not (report.unused or report.mismatched)
    for i in range(4):
        model["backbone"].get_submodule(f"norm{i}").load_state_dict(
            swin.get_submodule(f"norm{i}").state_dict()
        )
    image = torch.rand(1, 3, 64, 96)
    for name, expected in swin(image).items():
        assert torch.equal(model["backbone"](image)[name], expected)


def test_lists_are_cut_short_unless_asked_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = tmp_path / "resnet.pth"
    torch.save(RESNET18, source)
    convert(monkeypatch, source, tmp_path / "out.pth")
    output = capsys.readouterr().out
    listed = output.split("unused (22):\n")[1].split("config keys")[0].splitlines()
    assert len(listed) == 11
    assert listed[:2] == ["  fc.weight", "  fc.bias"]
    assert listed[10] == "  ... and 12 more; --verbose names all"
    assert " -> " not in output
    convert(monkeypatch, source, tmp_path / "out.pth", "--overwrite", "--verbose")
    output = capsys.readouterr().out
    assert output.count("num_batches_tracked") == 20
    assert "  layer2.0.downsample.1.weight -> backbone.res3.0.shortcut.norm.weight\n" in output


def test_a_config_decides_the_sizes(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source, target = tmp_path / "swin.pth", tmp_path / "out.pth"
    swin = D2SwinTransformer(
        embed_dim=8, depths=(1, 1, 1, 1), num_heads=(1, 1, 2, 2), window_size=7
    )
    torch.save(swin.state_dict(), source)
    config = write_config(tmp_path, "swin", MODEL__SWIN={"WINDOW_SIZE": 12})
    convert(monkeypatch, source, target, "--config-file", config)
    output = capsys.readouterr().out
    table = "backbone.layers.3.blocks.0.attn.relative_position_bias_table"
    assert f"  {table}: (169, 2) -> (529, 2)\n" in output
    assert "resized (8):" in output
    assert (
        f"config keys that differ in {config} (1):\n  MODEL.SWIN.WINDOW_SIZE is 12, the" in output
    )
    assert "config keys that fit" not in output
    assert "missing, stays as initialised (0):" in output
    assert read_checkpoint(str(target))["model"][table].shape == (529, 2)
    wider = write_config(tmp_path, "wider", MODEL__SWIN={"EMBED_DIM": 16})
    fails(
        monkeypatch,
        r"proj\.weight is \(8, 3, 4, 4\) in the file and \(16, 3, 4, 4\) in the model; use a conf",
        *(source, tmp_path / "no.pth", "--config-file", wider),
    )
    assert not (tmp_path / "no.pth").exists()


def test_dinov2_gets_patches_of_16(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    name = "vit_small_patch14_dinov2"
    state = {**timm.create_model(name).state_dict(), "mask_token": torch.zeros(1, 384)}
    torch.save(state, tmp_path / "dinov2.pth")
    config = write_config(
        tmp_path,
        "dinov2",
        MODEL__BACKBONE={"NAME": "TimmBackbone"},
        MODEL__DDEP={"TIMM": {"NAME": name, "PATCH_SIZE": 16}},
    )
    convert(monkeypatch, tmp_path / "dinov2.pth", tmp_path / "out.pth", "--config-file", config)
    output = capsys.readouterr().out
    assert "  backbone.model.pos_embed: (1, 1370, 384) -> (1, 1025, 384)\n" in output
    assert "proj.weight: (384, 3, 14, 14) -> (384, 3, 16, 16)\n" in output
    model = nn.ModuleDict({"backbone": build_backbone(load_config(config))})
    weights = read_checkpoint(str(tmp_path / "out.pth"))["model"]
    report = load_weights(model, weights, "out.pth")
    assert not (report.new or report.unused or report.mismatched)


@pytest.mark.parametrize("architecture", ["MaskFormer", "DenoisingPretrainer"])
def test_a_whole_model_is_compared_with_its_config(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    architecture: str,
) -> None:
    config = write_config(
        tmp_path, "whole", MODEL__META_ARCHITECTURE=architecture, MODEL__DEVICE="cpu"
    )
    state = build_model(load_config(config)).state_dict()
    lost = [name for name in state if ".transformer.encoder." in name]
    weights = {name: tensor.numpy() for name, tensor in state.items() if name not in lost}
    source, target = tmp_path / "model_final.pkl", tmp_path / "out.pth"
    source.write_bytes(pickle.dumps({"model": weights, "__author__": "them"}))
    convert(monkeypatch, source, target, "--config-file", config)
    rows = {row[0]: row[1:] for row in map(str.split, capsys.readouterr().out.splitlines()) if row}
    counts = Counter(group_of(name) for name in weights)
    missing = len(lost)
    if architecture == "DenoisingPretrainer":
        # Fine-tuning takes no denoising head.
        heads = counts.pop("denoising_head")
        assert rows["denoising_head"] == ["0", "0", str(heads), str(heads)]
    assert rows["encoder"] == [str(counts["encoder"]), "0", str(missing), "0"]
    for group in counts.keys() - {"encoder"}:
        assert rows[group] == [str(counts[group]), "0", "0", "0"]
    found = read_checkpoint(str(target))["model"]
    assert all(torch.equal(found[name], state[name]) for name in found)


def test_timms_folder_is_taken_as_it_is(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    save_file(timm.create_model("test_vit").state_dict(), folder / "model.safetensors")
    message = r"folder does not tell which vit model it is of; name it with --config-file"
    fails(monkeypatch, message, folder, tmp_path / "out.pth")
    settings = {"architecture": "test_vit", "pretrained_cfg": {"std": [0.5, 0.25, 0.125]}}
    (folder / "config.json").write_text(json.dumps(settings))
    convert(monkeypatch, folder, tmp_path / "out.pth")
    output = capsys.readouterr().out
    assert "  MODEL.DDEP.TIMM.NAME test_vit\n" in output
    assert "  MODEL.PIXEL_STD [127.5, 63.75, 31.875]\n" in output


def test_a_damaged_file_may_describe_an_impossible_model(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """detectron2 has no ResNet-18 of another width."""
    source = tmp_path / "resnet.pth"
    torch.save({**RESNET18, "layer1.0.conv2.weight": torch.ones(32, 32, 3, 3)}, source)
    message = (
        r"describe a model that cannot be built \(MODEL\.BACKBONE.*the file is damaged, or only"
    )
    fails(monkeypatch, message, source, tmp_path / "out.pth")


def test_a_pretraining_checkpoint_keeps_what_fine_tuning_loads(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    decoder = "sem_seg_head.pixel_decoder"
    kept = {
        "backbone.conv.weight": torch.ones(1),
        f"{decoder}.input_proj.0.0.weight": torch.ones(2),
        f"{decoder}.mask_features.weight": torch.ones(3),
    }
    source, target = tmp_path / "model_final.pth", tmp_path / "slim.pth"
    model = {**kept, "denoising_head.conv.weight": torch.ones(4)}
    torch.save({"model": model, "trainer": {"_trainer": {"optimizer": {}}}, "iteration": 3}, source)
    convert(monkeypatch, source, target, "--from", "ddep")
    output = capsys.readouterr().out
    assert "unused (1):\n  denoising_head.conv.weight\n" in output
    assert "missing, stays as initialised (1):\n  every weight of fpn\n" in output
    slim = torch.load(target, weights_only=True)
    assert list(slim) == ["model"]
    torch.testing.assert_close(slim["model"], kept, rtol=0, atol=0)


@pytest.mark.parametrize(
    ("weights", "arguments", "message"),
    [
        (
            {"a.b": torch.ones(1)},
            [],
            r"nothing matches the format swin or .*: found 1 weights, a\.b, .*; looked for layers",
        ),
        (RESNET18, ["--from", "swin"], "the format swin: found 122 weights, conv1.weight"),
        (
            {n: RESNET18[n] for n in list(RESNET18)[:30]},
            ["--from", "resnet"],
            "nothing matches the format resnet: found 30 weights, conv1.weight",
        ),
    ],
)
def test_what_does_not_match_writes_nothing(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    weights: dict[str, torch.Tensor],
    arguments: list[str],
    message: str,
) -> None:
    source, target = tmp_path / "in.pth", tmp_path / "out.pth"
    torch.save(weights, source)
    fails(monkeypatch, message, source, target, *arguments)
    assert not target.exists()


def test_files_are_not_overwritten_by_accident(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source, target = tmp_path / "in.pth", tmp_path / "out.bin"
    names = ["backbone.a", "sem_seg_head.pixel_decoder.mask_features.weight"]
    torch.save({name: torch.ones(1) for name in names}, source)
    before = source.read_bytes()
    fails(monkeypatch, r"in\.pth is SRC", source, tmp_path / "." / "in.pth", "--overwrite")
    for name in ("out.pkl", "out.safetensors"):
        fails(monkeypatch, rf"{name}: what is written is a \.pth; name", source, tmp_path / name)
    target.write_bytes(b"precious")
    fails(monkeypatch, r"out\.bin exists; .* --overwrite", source, target)
    assert (source.read_bytes(), target.read_bytes()) == (before, b"precious")
    capsys.readouterr()
    checksum = tmp_path / "out.bin.sha256"
    checksum.touch()
    convert(monkeypatch, source, target, "--overwrite")
    assert not checksum.exists(), "it is of the file that was replaced"
    assert "warning: DST" in capsys.readouterr().out
    assert list(read_checkpoint(str(target))["model"]) == names


def test_the_folder_is_created(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source, target = tmp_path / "resnet.pth", tmp_path / "pretrained" / "here" / "r18.pth"
    torch.save({"a.b": torch.ones(1)}, source)
    fails(monkeypatch, "nothing matches", source, target)
    assert not (tmp_path / "pretrained").exists()
    torch.save(RESNET18, source)
    convert(monkeypatch, source, target)
    assert target.is_file()


def test_an_unwritable_destination_is_an_error_before_the_report(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source = tmp_path / "resnet.pth"
    torch.save(RESNET18, source)
    (tmp_path / "folder.pth").mkdir()
    fails(monkeypatch, r"folder\.pth is a folder; name", source, tmp_path / "folder.pth")
    words = [tmp_path / "folder.pth", "--overwrite"]
    fails(monkeypatch, r"folder\.pth is a folder; name", source, *words)
    target = source / "r18.pth"
    fails(monkeypatch, r"r18\.pth cannot be written: its folder .*; choose", source, target)
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write anywhere
    fails(monkeypatch, "its folder is read-only; choose", source, tmp_path / "r18.pth")
    assert capsys.readouterr().out == ""
