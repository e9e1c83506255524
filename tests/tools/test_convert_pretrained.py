from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone
from torch import nn

from ddep.checkpoint import read_checkpoint
from ddep.checkpoint.loading import load_weights
from ddep.config import add_ddep_config

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


def randomise(model: nn.Module) -> nn.Module:
    """Let every parameter and every statistic matter."""
    for name, tensor in model.state_dict().items():
        if name.endswith("running_var"):
            tensor.uniform_(0.5, 1.5)
        elif tensor.dtype.is_floating_point:
            tensor.add_(0.1 * torch.randn_like(tensor))
    return model.eval()


def converted_backbone(output: str, path: Path) -> nn.Module:
    """The backbone of the config keys in the tool's output, with the weights at ``path``."""
    keys = output.split("config keys that fit")[1].split("wrote")[0]
    pairs = re.findall(r"^  ([A-Z0-9_.]+) (.+)$", keys, re.MULTILINE)
    cfg = get_cfg()
    add_ddep_config(cfg)
    cfg.merge_from_list([word for pair in pairs for word in pair])
    model = nn.ModuleDict({"backbone": build_backbone(cfg)}).eval()
    report = load_weights(model, read_checkpoint(str(path))["model"], str(path))
    assert report.unused == []
    assert not report.mismatched
    assert all(re.fullmatch(r"backbone\.norm\d\.(weight|bias)", name) for name in report.new)
    return model["backbone"]


def original_swin_state(model: nn.Module) -> dict[str, torch.Tensor]:
    """timm's weights under the original names: patch merging ends a stage instead of starting one.

    With the buffers that original files hold.
    """
    state = {}
    for name, tensor in model.state_dict().items():
        name = re.sub(
            r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name
        )
        state[name.replace("head.fc.", "head.")] = tensor
    for name, module in model.named_modules():
        if name.endswith(".attn"):
            state[f"{name}.relative_position_index"] = module.relative_position_index
    state["layers.0.blocks.1.attn_mask"] = torch.zeros(64, 49, 49)
    return state


@torch.no_grad()
def test_an_original_swin_gives_the_same_features(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    swin = timm.models.swin_transformer.SwinTransformer(
        embed_dim=32, depths=(2, 2, 3, 1), num_heads=(1, 2, 4, 8), window_size=7, num_classes=5
    )
    randomise(swin)
    source, target = tmp_path / "swin.pth", tmp_path / "out.pth"
    torch.save({"model": original_swin_state(swin)}, source)
    convert(monkeypatch, source, target, "--verbose")
    output = capsys.readouterr().out
    assert "  patch_embed.proj.weight -> backbone.patch_embed.proj.weight\n" in output
    assert re.search(r"missing, stays as initialised \(8\):\n  backbone\.norm0\.weight", output)
    assert "MODEL.SWIN.DEPTHS [2, 2, 3, 1]" in output
    unused = re.search(r"unused \((\d+)\):\n((?:  .*\n)*)", output)
    assert unused[1] == "5"
    assert unused[2].split() == [
        "norm.weight",
        "norm.bias",
        "head.weight",
        "head.bias",
        "layers.0.blocks.1.attn_mask",
    ]

    backbone = converted_backbone(output, target)
    # At this size no padding is needed, with which timm's differs from the original.
    image = torch.rand(1, 3, 224, 224)
    x = swin.patch_embed(image)
    expected = {}
    for index, stage in enumerate(swin.layers):
        x = stage(x)
        norm = getattr(backbone, f"norm{index}")
        expected[f"res{index + 2}"] = norm(x).permute(0, 3, 1, 2)
    found = backbone(image)
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("name", "depth"), [("resnet18", 18), ("resnet50", 50), ("resnext50_32x4d", 50)]
)
@torch.no_grad()
def test_a_torchvision_resnet_gives_the_same_features(
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
    name: str,
    depth: int,
) -> None:
    resnet = randomise(torchvision.models.get_model(name, weights=None)).double()
    source, target = tmp_path / "resnet.pth", tmp_path / "out.pth"
    torch.save(resnet.state_dict(), source)
    convert(monkeypatch, source, target, "--verbose")
    output = capsys.readouterr().out
    assert "  layer2.0.downsample.1.weight -> backbone.res3.0.shortcut.norm.weight\n" in output
    assert "missing, stays as initialised (0):" in output
    assert f"MODEL.RESNETS.DEPTH {depth}\n" in output
    assert re.search(r"unused \(\d+\):\n(  .*\n)*  fc\.weight\n", output)

    backbone = converted_backbone(output, target).double()
    image = torch.rand(1, 3, 64, 96, dtype=torch.float64)
    found = backbone(image)
    x = resnet.maxpool(resnet.relu(resnet.bn1(resnet.conv1(image))))
    for index in range(1, 5):
        x = getattr(resnet, f"layer{index}")(x)
        torch.testing.assert_close(found[f"res{index + 1}"], x, rtol=1e-6, atol=0)


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
            "matches",
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
    target.write_bytes(b"precious")
    fails(monkeypatch, r"out\.bin exists; .* --overwrite", source, target)
    assert (source.read_bytes(), target.read_bytes()) == (before, b"precious")
    capsys.readouterr()
    convert(monkeypatch, source, target, "--overwrite")
    assert "warning: DST" in capsys.readouterr().out
    assert list(read_checkpoint(str(target))["model"]) == names


def test_the_folder_is_made(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    source, target = tmp_path / "resnet.pth", tmp_path / "pretrained" / "here" / "r18.pth"
    torch.save({"a.b": torch.ones(1)}, source)
    fails(monkeypatch, "nothing matches", source, target)
    assert not (tmp_path / "pretrained").exists()
    torch.save(RESNET18, source)
    convert(monkeypatch, source, target)
    assert target.is_file()


def test_where_nothing_can_be_written_is_said_before_the_report(
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
