"""detectron2's ResNet with Mask2Former's settings, compared with torchvision's."""

from __future__ import annotations

import re

import pytest
import torch
import torchvision
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone
from torch import nn

from ddep.config import add_ddep_config

TO_DETECTRON2 = {
    r"^(conv1|bn1)": r"stem.\1",
    r"^layer(\d)": lambda match: f"res{int(match[1]) + 1}",
    r"bn(\d)": r"conv\1.norm",
    r"downsample\.0": "shortcut",
    r"downsample\.1": "shortcut.norm",
}


def rename(name: str) -> str:
    for pattern, replacement in TO_DETECTRON2.items():
        name = re.sub(pattern, replacement, name)
    return name


@pytest.mark.parametrize("height, width", [(64, 96), (97, 131)])
def test_resnet50_equals_torchvision(height: int, width: int) -> None:
    cfg = get_cfg()
    add_ddep_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    cfg.MODEL.BACKBONE.FREEZE_AT = 0
    cfg.MODEL.RESNETS.DEPTH = 50
    cfg.MODEL.RESNETS.STEM_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.STRIDE_IN_1X1 = False
    cfg.MODEL.RESNETS.NORM = "FrozenBN"
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    ours = build_backbone(cfg).eval()

    torch.manual_seed(0)
    theirs = torchvision.models.resnet50(weights=None).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
            module.weight.data.uniform_(0.2, 1)
            module.bias.data.normal_(std=0.1)
    state = {rename(name): value for name, value in theirs.state_dict().items()}
    missing, unexpected = ours.load_state_dict(state, strict=False)
    assert not missing
    assert {name.rsplit(".", 1)[1] for name in unexpected if not name.startswith("fc.")} == {
        "num_batches_tracked"
    }

    images = torch.randn(2, 3, height, width)
    with torch.no_grad():
        features = ours(images)
        x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
        for name, layer in zip(("res2", "res3", "res4", "res5"), ("1", "2", "3", "4"), strict=True):
            x = theirs.get_submodule(f"layer{layer}")(x)
            torch.testing.assert_close(features[name], x, atol=1e-4, rtol=0)
    assert all(parameter.requires_grad for parameter in ours.parameters())
