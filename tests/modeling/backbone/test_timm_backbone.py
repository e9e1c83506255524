"""TimmBackbone, compared with the outputs of the layers of timm's own models."""

from __future__ import annotations

import re

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_backbone
from torch import nn

from ddep.config import add_ddep_config
from ddep.errors import UserError
from ddep.modeling.backbone import TimmBackbone
from ddep.modeling.backbone.resize_tokens import resize_tokens

STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}


def images(height: int, width: int) -> torch.Tensor:
    return torch.randn(2, 3, height, width, generator=torch.Generator().manual_seed(0))


def models(name: str) -> tuple[nn.Module, TimmBackbone]:
    """timm's whole model, and ours with its checkpoint below ``model.``."""
    torch.manual_seed(0)
    theirs = timm.create_model(name).eval()
    for module in theirs.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.running_mean.normal_(std=0.1)
            module.running_var.uniform_(0.5, 2)
    ours = TimmBackbone(name=name).eval()
    state = {f"model.{key}": value for key, value in theirs.state_dict().items()}
    assert not ours.load_state_dict(state, strict=False).missing_keys
    return theirs, ours


def layer_outputs(model: nn.Module, layers: list[str], inputs: torch.Tensor) -> list[torch.Tensor]:
    outputs = {}
    for layer in layers:
        model.get_submodule(layer).register_forward_hook(
            lambda _module, _inputs, output, layer=layer: outputs.__setitem__(layer, output)
        )
    with torch.no_grad():
        model(inputs)
    return [outputs[layer] for layer in layers]


@pytest.mark.parametrize(
    "name, layers",
    [
        ("resnet18", ["layer1", "layer2", "layer3", "layer4"]),
        ("convnext_atto", ["stages.0", "stages.1", "stages.2", "stages.3"]),
        ("efficientnet_b0", ["blocks.1", "blocks.2", "blocks.4", "blocks.6"]),
        ("mobilenetv3_small_050", ["blocks.0", "blocks.1", "blocks.3", "blocks.5"]),
        # Its feature maps are (B,H,W,C).
        ("test_mambaout", ["stages.0", "stages.1", "stages.2", "stages.3"]),
    ],
)
def test_hierarchical_features_are_the_stages_outputs(name: str, layers: list[str]) -> None:
    theirs, ours = models(name)
    inputs = images(64, 96)
    expected = layer_outputs(theirs, layers, inputs)
    with torch.no_grad():
        features = ours(inputs)
    assert list(features) == list(STRIDES)
    for (feature, stride), reference in zip(STRIDES.items(), expected, strict=True):
        if name == "test_mambaout":
            reference = reference.permute(0, 3, 1, 2)
        channels = ours.output_shape()[feature].channels
        assert ours.output_shape()[feature].stride == stride
        assert features[feature].shape == (2, channels, 64 // stride, 96 // stride)
        torch.testing.assert_close(features[feature], reference)


def averaged(tokens: torch.Tensor, patch: int, stride: int) -> np.ndarray:
    """Area averages, computed from single pixels in float64."""
    pixels = np.kron(tokens.double().numpy(), np.ones((patch, patch)))
    rows, columns = (n // stride for n in pixels.shape[-2:])
    pixels = pixels[..., : rows * stride, : columns * stride]
    return pixels.reshape(*pixels.shape[:2], rows, stride, columns, stride).mean(axis=(3, 5))


@pytest.mark.parametrize(
    "name, patch", [("vit_tiny_patch16_224", 16), ("eva02_tiny_patch14_224", 14)]
)
def test_plain_features_are_resized_outputs_of_four_blocks(name: str, patch: int) -> None:
    theirs, ours = models(name)
    inputs = images(224, 224)
    side = 224 // patch
    expected = layer_outputs(theirs, [f"blocks.{i}" for i in (2, 5, 8, 11)], inputs)
    with torch.no_grad():
        features = ours(inputs)
    for (feature, stride), tokens in zip(STRIDES.items(), expected, strict=True):
        grid = tokens[:, 1:].transpose(1, 2).unflatten(2, (side, side))
        if stride > patch:
            reference = torch.from_numpy(averaged(grid, patch, stride)).float()
        else:
            size = (224 // stride, 224 // stride)
            reference = F.interpolate(grid, size=size, mode="bilinear")
        torch.testing.assert_close(features[feature], reference, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "indices", "layers"),
    [
        ("vit_tiny_patch16_224", [1, 4, 5, 9], [f"blocks.{i}" for i in (1, 4, 5, 9)]),
        ("convnext_atto", [0, 1, 2, 3], [f"stages.{i}" for i in range(4)]),
    ],
)
def test_features_of_chosen_blocks(name: str, indices: list[int], layers: list[str]) -> None:
    theirs, _ = models(name)
    cfg = config(name)
    cfg.MODEL.DDEP.TIMM.OUT_INDICES = indices
    ours = build_backbone(cfg).eval()
    if name.startswith("vit"):
        assert len(ours.model.blocks) == 10
    state = {f"model.{key}": value for key, value in theirs.state_dict().items()}
    assert not ours.load_state_dict(state, strict=False).missing_keys
    inputs = images(224, 224)
    expected = layer_outputs(theirs, layers, inputs)
    with torch.no_grad():
        features = ours(inputs)
    if name == "convnext_atto":
        for feature, reference in zip(features.values(), expected, strict=True):
            torch.testing.assert_close(feature, reference)
        return
    grids = [tokens[:, 1:].transpose(1, 2).unflatten(2, (14, 14)) for tokens in expected]
    torch.testing.assert_close(features["res4"], grids[2])
    for feature, index in (("res2", 0), ("res3", 1)):
        enlarged = F.interpolate(grids[index], size=features[feature].shape[-2:], mode="bilinear")
        torch.testing.assert_close(features[feature], enlarged)
    pooled = F.avg_pool2d(grids[3], 2)
    torch.testing.assert_close(features["res5"], pooled)


@pytest.mark.parametrize(
    ("name", "indices", "message"),
    [
        (
            "test_vit",
            [0, 1, 2],
            r"\[0, 1, 2\]; expected four increasing numbers from 0 to 5",
        ),
        ("test_vit", [0, 2, 2, 3], "four increasing"),
        ("test_vit", [-1, 1, 2, 3], "four increasing"),
        ("test_vit", [0, 1, 2, 6], "from 0 to 5"),
        (
            "resnet18",
            [0, 1, 2, 3],
            r"resnet18 at strides \[2, 4, 8, 16\]; expected 4, 8",
        ),
    ],
)
def test_blocks_that_do_not_exist_are_refused(name: str, indices: list[int], message: str) -> None:
    with pytest.raises(UserError, match=rf"^MODEL\.DDEP\.TIMM\.OUT_INDICES is .*{message}"):
        TimmBackbone(name=name, out_indices=indices)


@pytest.mark.parametrize("patch", [7, 8, 14, 16, 32])
@pytest.mark.parametrize("stride", [4, 8, 16, 32])
def test_resized_tokens_stay_in_place(patch: int, stride: int) -> None:
    # Patches of 14 need 518 pixels for 512: the ratio of sizes then differs from that of strides.
    size = -(-512 // patch)
    centres = (torch.arange(size, dtype=torch.float64) + 0.5) * patch
    grid = torch.stack(torch.meshgrid(centres, centres[:-3], indexing="ij"))[None]
    resized = resize_tokens(grid, patch, stride)
    rows, columns = (n * patch // stride for n in grid.shape[-2:])
    assert resized.shape == (1, 2, rows, columns)
    if stride > patch:
        np.testing.assert_allclose(resized.numpy(), averaged(grid, patch, stride), rtol=1e-12)
        return
    expected = (torch.arange(rows, dtype=torch.float64) + 0.5) * stride
    expected = torch.stack(torch.meshgrid(expected, expected[:columns], indexing="ij"))[None]
    inner = (..., slice(patch, -patch), slice(patch, -patch))
    torch.testing.assert_close(resized[inner], expected[inner], rtol=1e-9, atol=0)


@pytest.mark.parametrize("size", [(512, 352), (131, 97), (300, 412)])
def test_plain_features_are_where_their_pixels_are(
    size: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = TimmBackbone(name="eva02_tiny_patch14_224")

    def mean_colours(inputs: torch.Tensor, **_options: object) -> list[torch.Tensor]:
        return [F.avg_pool2d(inputs, 14)] * 4

    monkeypatch.setattr(model.model, "forward_intermediates", mean_colours)
    rows, columns = (torch.arange(n) + 0.5 for n in size)
    ramps = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))[None]
    for feature, stride in zip(model(ramps).values(), STRIDES.values(), strict=True):
        assert feature.shape[-2:] == tuple(-(-n // stride) for n in size)
        for axis in (0, 1):
            values = feature[0, axis].movedim(axis, 0)
            # Cells next to patches that extend into the padding are not compared.
            count, across = (n // 14 * 14 // stride - 14 // stride - 1 for n in (size[axis], 97))
            found = values[14 // stride : count, :across]
            expected = (torch.arange(14 // stride, count) + 0.5)[:, None] * stride
            # Averages treat a patch as constant, even one that lies in two cells.
            assert found.numel()
            assert (found - expected).abs().max() < (1 if stride > 14 else 1e-2)


@pytest.mark.parametrize(
    "name", ["resnet18", "convnext_atto", "test_vit", "eva02_tiny_patch14_224"]
)
def test_any_size_and_gradients_for_every_parameter(name: str) -> None:
    model = TimmBackbone(name=name)
    assert model.training
    tracked = [b for n, b in model.named_buffers() if n.endswith("num_batches_tracked")]
    assert not any(tracked)
    inputs = images(97, 131).requires_grad_()
    features = model(inputs)
    for feature, stride in STRIDES.items():
        channels = model.output_shape()[feature].channels
        size = (-(-97 // stride), -(-131 // stride))
        assert features[feature].shape == (2, channels, *size)
        assert features[feature].is_contiguous()
    sum(feature.square().mean() for feature in features.values()).backward()
    assert inputs.grad.abs().amax((0, 1)).count_nonzero() > 0.9 * 97 * 131
    assert [n for n, p in model.named_parameters() if p.grad is None] == []


def config(name: str, drop_path_rate: float = 0.0, patch_size: int = 0) -> CfgNode:
    cfg = get_cfg()
    add_ddep_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "TimmBackbone"
    cfg.MODEL.DDEP.TIMM.NAME = name
    cfg.MODEL.DDEP.TIMM.DROP_PATH_RATE = drop_path_rate
    cfg.MODEL.DDEP.TIMM.PATCH_SIZE = patch_size
    return cfg


def test_builds_from_the_config() -> None:
    model = build_backbone(config("convnext_atto", 0.3), ShapeSpec(channels=4))
    assert model.size_divisibility == 32
    assert model(torch.zeros(1, 4, 64, 64))["res5"].shape == (1, 320, 2, 2)
    rates = [m.drop_prob for m in model.modules() if isinstance(m, timm.layers.DropPath)]
    assert max(rates) == pytest.approx(0.3)


def test_patches_may_have_another_size() -> None:
    model = build_backbone(config("vit_small_patch14_dinov2", patch_size=16), ShapeSpec(channels=3))
    assert model.model.patch_embed.proj.weight.shape == (384, 3, 16, 16)
    # Cells of stride 16 are the tokens themselves.
    inputs = images(64, 96)
    tokens = model.model.forward_intermediates(inputs, indices=[8], intermediates_only=True)
    assert torch.equal(model.eval()(inputs)["res4"], tokens[0])


@pytest.mark.parametrize(
    "cfg, message",
    [
        (config("convnextt_tiny"), "NAME convnextt_tiny is not a model of timm; .* convnext_tiny"),
        (config("hf-hub:a/b"), "NAME hf-hub:a/b is not a model of timm; timm.list_models"),
        (config("levit_128s"), "NAME levit_128s has features at strides 16, 32, 64; expected 4, 8"),
        (config("convit_tiny"), r"NAME convit_tiny does not take images of any size.*\(224\)"),
        (config("test_coatnet"), "NAME test_coatnet does not take images of any size"),
        (config("resnet18", 1.0), "DROP_PATH_RATE is 1.0; expected at least 0 and below 1"),
        (config("resnet18", patch_size=-1), "PATCH_SIZE is -1; expected pixels, or 0"),
        (config("resnet18", patch_size=16), "PATCH_SIZE is 16, but resnet18 has no patches; se"),
        (config("ghostnet_050", 0.1), "DROP_PATH_RATE is 0.1, but ghostnet_050 has no stoch"),
    ],
)
def test_mistakes_are_explained_in_one_line(cfg: CfgNode, message: str) -> None:
    with pytest.raises(UserError, match=rf"^MODEL\.DDEP\.TIMM\.{message}") as caught:
        build_backbone(cfg)
    assert not re.search(r"\n", str(caught.value))


def test_features_of_other_sizes_than_declared_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Convolutions without padding, as in legacy_xception.
    create = timm.create_model

    def without_padding(*args: object, **options: object) -> nn.Module:
        model = create(*args, **options)
        model.conv1.padding = (0, 0)
        return model

    monkeypatch.setattr(timm, "create_model", without_padding)
    with pytest.raises(UserError, match="NAME resnet18 has features of .*; expected .*; choose"):
        TimmBackbone(name="resnet18")


def test_models_whose_features_timm_does_not_give_are_refused(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delattr(timm.models.ResNet, "forward_intermediates")
    with pytest.raises(UserError, match=r"NAME resnet18: timm .* gives no features of this model"):
        TimmBackbone(name="resnet18")
