"""The layers of encoders, against timm's own grouping and by hand."""

from __future__ import annotations

import re

import pytest
import timm
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from timm.optim import param_groups_layer_decay
from torch import nn

from ddep.errors import UserError
from ddep.modeling.backbone import D2SwinTransformer, TimmBackbone
from ddep.modeling.encoder_layers import encoder_layers
from tests.modeling.test_denoising_decoder import config_of


def timm_scales(name: str, decay: float) -> dict[str, float]:
    """The factor that timm gives to each parameter of its whole model, classifier included."""
    model = timm.create_model(name)
    names = {parameter: name for name, parameter in model.named_parameters()}
    groups = param_groups_layer_decay(model, layer_decay=decay)
    return {names[p]: group["lr_scale"] for group in groups for p in group["params"]}


def with_head(backbone: nn.Module) -> nn.ModuleDict:
    return nn.ModuleDict({"backbone": backbone, "head": nn.Linear(1, 1)})


@pytest.mark.parametrize(
    "name", ["resnet10t", "convnext_atto", "efficientnet_b0", "test_vit", "regnety_002"]
)
def test_layers_of_timms_models_are_timms(name: str) -> None:
    model = with_head(TimmBackbone(name=name))
    layers = encoder_layers(model)
    expected = timm_scales(name, 0.5)
    assert layers.keys() == {n for n, _ in model.named_parameters() if n.startswith("backbone")}
    last = max(layers.values())
    assert last >= 4
    for parameter, layer in layers.items():
        scale = expected[parameter.removeprefix("backbone.model.")]
        assert 0.5 ** (last + 1 - layer) == scale, parameter


@pytest.mark.parametrize("ape", [False, True])
def test_layers_of_swin_are_its_blocks(ape: bool) -> None:
    swin = D2SwinTransformer(
        embed_dim=8, depths=[2, 2, 3, 1], num_heads=[1, 1, 1, 1], window_size=2, ape=ape
    )
    layers = encoder_layers(with_head(swin))
    assert len(layers) == len(list(swin.parameters()))
    found: dict[str, set[int]] = {}
    for name, layer in layers.items():
        block = re.match(r"backbone\.(layers\.\d\.blocks\.\d|layers\.\d\.downsample|\w+)", name)
        found.setdefault(block[1], set()).add(layer)
    expected = {"patch_embed": {0}} | ({"absolute_pos_embed": {0}} if ape else {})
    blocks = [(0, 0), (0, 1), (1, 0), (1, 1), (2, 0), (2, 1), (2, 2), (3, 0)]
    expected |= {f"layers.{s}.blocks.{b}": {i} for i, (s, b) in enumerate(blocks, start=1)}
    expected |= {f"layers.{stage}.downsample": {end} for stage, end in enumerate((2, 4, 7))}
    expected |= {f"norm{stage}": {end} for stage, end in enumerate((2, 4, 7, 8))}
    assert found == expected


@pytest.mark.parametrize("decoder", ["fpn", "deeplab"])
def test_layers_of_a_resnet_are_its_stages(decoder: str) -> None:
    cfg = config_of(decoder)
    layers = encoder_layers(with_head(build_backbone(cfg, ShapeSpec(channels=3))))
    prefix = "backbone.bottom_up." if decoder == "fpn" else "backbone."
    found = {(name.removeprefix(prefix).split(".")[0], layer) for name, layer in layers.items()}
    assert found == {("stem", 0), ("res2", 1), ("res3", 2), ("res4", 3), ("res5", 4)}


class Trunk(nn.Module):
    def __init__(self, *names: str) -> None:
        super().__init__()
        for name in names:
            self.add_module(name, nn.Linear(1, 1))


class OwnLayers(Trunk):
    def parameter_layers(self) -> dict[str, int]:
        return {name: 7 for name, _ in self.named_parameters()}


class OwnModel(Trunk):
    weight_groups = {r"trunk\.": "backbone"}


def test_a_backbone_of_ones_own_knows_its_layers() -> None:
    model = OwnModel("head")
    model.trunk = OwnLayers("conv")
    assert encoder_layers(model) == {"trunk.conv.weight": 7, "trunk.conv.bias": 7}


def test_unknown_layers_are_an_error_of_one_line() -> None:
    advice = "expected D2SwinTransformer, TimmBackbone or a ResNet; set SOLVER.LAYER_DECAY to 1.0"
    model = with_head(Trunk("conv"))
    with pytest.raises(UserError, match=f"but Trunk has no method parameter_layers; {advice}"):
        encoder_layers(model)
    with pytest.raises(UserError, match="but Trunk has 0 modules as its encoder"):
        encoder_layers(Trunk("conv"))
    with pytest.raises(UserError, match=r"of MetaFormer, which timm [\d.]+ does not know"):
        encoder_layers(with_head(TimmBackbone(name="poolformer_s12")))
