"""Decoders of several kinds behind one interface, and the encoders that they belong to."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from torch.nn import functional as F

from ddep.errors import UserError
from ddep.modeling.denoising_decoder import FPNDecoding
from ddep.modeling.encoder import encoder_modules, encoder_parameters
from ddep.noise import add_noise
from ddep.tasks import load_config
from tests.modeling.meta_arch.small_denoiser import noisy_input, small_config, swin_config

CONFIGS = Path(__file__).parents[2] / "configs" / "pretrain"


def config_of(decoder: str, **ddep: Any) -> CfgNode:
    """The config of a thin ResNet, for DeepLab dilated in its last stage, with a decoder."""
    cfg = small_config()
    backbone = {"fpn": "build_resnet_fpn_backbone", "deeplab": "build_resnet_deeplab_backbone"}
    cfg.MODEL.BACKBONE.NAME = backbone[decoder]
    resnet = {"DEPTH": 50, "STEM_OUT_CHANNELS": 4, "RES2_OUT_CHANNELS": 8, "WIDTH_PER_GROUP": 4}
    resnet |= {"STEM_TYPE": "basic", "RES5_DILATION": 2 if decoder == "deeplab" else 1}
    for key, value in resnet.items():
        cfg.MODEL.RESNETS[key] = value
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.FPN.OUT_CHANNELS = 16
    head = {"ASPP_CHANNELS": 8, "CONVS_DIM": 16, "PROJECT_CHANNELS": [4], "NORM": "BN"}
    if decoder == "deeplab":
        head["IN_FEATURES"] = ["res2", "res5"]
    for key, value in head.items():
        cfg.MODEL.SEM_SEG_HEAD[key] = value
    for key, value in {"DECODER": decoder, **ddep}.items():
        cfg.MODEL.DDEP[key] = value
    return cfg


def smooth_input(seed: int, height: int, width: int) -> dict[str, Any]:
    """A noisy image of a few large blobs, which coarse features can tell from the noise."""
    noisy = noisy_input(seed, height, width, 0.5)
    clean = F.interpolate(noisy["clean"][None, :, :3, :3], (height, width), mode="bilinear")[0]
    return noisy | {"image": add_noise(clean, noisy["noise"], 0.5, "scaled")}


DECODERS = [("fpn", False), ("fpn", True), ("deeplab", False)]


@pytest.mark.parametrize(("decoder", "multi_scale"), DECODERS)
def test_everything_but_a_frozen_encoder_learns(decoder: str, multi_scale: bool) -> None:
    """DistributedDataParallel also needs a gradient for every parameter that learns."""
    torch.manual_seed(0)
    model = build_model(config_of(decoder, MULTI_SCALE=multi_scale, TARGET="image"))
    encoder = "backbone.bottom_up." if decoder == "fpn" else "backbone."
    learning = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(learning, lr=1e-2)
    batch = [smooth_input(0, 32, 64), smooth_input(1, 20, 37)]
    totals = []
    for _ in range(12):
        losses = model(batch)
        assert len(losses) == (4 if multi_scale else 1)
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert totals[-1] < 0.8 * totals[0]
    for name, parameter in model.named_parameters():
        frozen = name.startswith(encoder)
        assert parameter.requires_grad is not frozen, name
        assert (parameter.grad is None) is frozen, name
    estimates = model.eval()(batch)
    assert [x["noise"].shape for x in estimates] == [(3, 32, 64), (3, 20, 37)]


@pytest.mark.parametrize(("decoder", "multi_scale"), DECODERS)
def test_without_freezing_everything_learns(decoder: str, multi_scale: bool) -> None:
    torch.manual_seed(0)
    model = build_model(config_of(decoder, MULTI_SCALE=multi_scale, FREEZE_BACKBONE=False))
    sum(model([noisy_input(i, 64, 64, 0.5) for i in range(2)]).values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    assert all(module.training for module in model.modules())


def test_a_frozen_encoder_in_an_fpn() -> None:
    """It stays in eval mode and keeps its statistics, but nothing for the backward pass."""
    torch.manual_seed(0)
    model = build_model(config_of("fpn"))
    encoder = model.backbone.bottom_up
    outputs = {}
    encoder.register_forward_hook(lambda _, __, output: outputs.update(output))
    before = {name: tensor.clone() for name, tensor in encoder.state_dict().items()}
    model.eval().train()
    assert not any(module.training for module in encoder.modules())
    assert model.backbone.fpn_output2.training
    assert model.backbone.fpn_lateral5.training
    sum(model([noisy_input(0, 64, 64, 0.5)]).values()).backward()
    assert len(outputs) == 4
    assert not any(output.requires_grad or output.grad_fn for output in outputs.values())
    for name, tensor in encoder.state_dict().items():
        assert torch.equal(tensor, before[name]), name


def test_modules_and_parameters_of_the_encoder() -> None:
    model = build_model(config_of("fpn"))
    assert encoder_modules(model) == [model.backbone.bottom_up]
    assert list(encoder_parameters(model)) == [
        f"backbone.bottom_up.{name}" for name, _ in model.backbone.bottom_up.named_parameters()
    ]
    for model in (build_model(config_of("deeplab")), build_model(swin_config())):
        assert encoder_modules(model) == [model.backbone]
        assert len(encoder_parameters(model)) == len(list(model.backbone.parameters()))


def test_a_class_may_declare_its_encoder() -> None:
    model = build_model(config_of("fpn"))
    type(model).weight_groups = {r"backbone\.fpn_lateral": "backbone"}
    try:
        names = [name for name in encoder_parameters(model) if "bottom_up" not in name]
        assert {name.split(".")[1] for name in names} == {f"fpn_lateral{i}" for i in (2, 3, 4, 5)}
        assert len(encoder_modules(model)) == 5
    finally:
        del type(model).weight_groups


def test_levels_of_an_fpn_are_added_up() -> None:
    """Compared with explicit bilinear interpolation of a level of half the size."""
    generator = torch.Generator().manual_seed(0)
    levels = {"p3": 8, "p2": 4}
    p2 = torch.randn(1, 2, 4, 6, generator=generator, dtype=torch.float64)
    p3 = torch.randn(1, 2, 2, 3, generator=generator, dtype=torch.float64)
    decoder = FPNDecoding(levels, channels=2)
    total, scales = decoder({"p3": p3, "p2": p2})
    assert scales == []
    assert (decoder.mask_dim, decoder.scale_dim) == (2, None)
    for y in range(4):
        for x in range(6):
            # In pixel centres; the border is repeated outside.
            row, column = ((i + 0.5) / 2 - 0.5 for i in (y, x))
            expected = p2[0, :, y, x].clone()
            for i in (math.floor(row), math.floor(row) + 1):
                for j in (math.floor(column), math.floor(column) + 1):
                    weight = (1 - abs(row - i)) * (1 - abs(column - j))
                    expected += weight * p3[0, :, min(max(i, 0), 1), min(max(j, 0), 2)]
            torch.testing.assert_close(total[0, :, y, x], expected)


def test_scales_of_an_fpn_are_its_levels() -> None:
    strides = {"p2": 4, "p3": 8, "p4": 16, "p5": 32, "p6": 64}
    features = {name: torch.randn(1, 2, 128 // s, 128 // s) for name, s in strides.items()}
    decoder = FPNDecoding(strides, channels=2)
    total, scales = decoder(features)
    assert decoder.scale_dim == 2
    assert [scale is features[name] for scale, name in zip(scales, ("p5", "p4", "p3"), strict=True)]
    assert total.shape == features["p2"].shape


def test_deeplab_takes_images_of_any_size_whatever_the_crop() -> None:
    cfg = config_of("deeplab")
    cfg.INPUT.CROP.ENABLED, cfg.INPUT.CROP.TYPE, cfg.INPUT.CROP.SIZE = True, "absolute", [64, 64]
    torch.manual_seed(0)
    model = build_model(cfg).eval()
    features = model.backbone(torch.randn(1, 3, 96, 160))
    with torch.no_grad():
        total, scales = model.sem_seg_head(features)
    assert (tuple(total.shape), scales) == ((1, 16, 24, 40), [])
    fine, coarse = features["res2"], features["res5"]
    stages = model.sem_seg_head.decoder
    coarse = F.interpolate(stages["res5"]["project_conv"](coarse), (24, 40), mode="bilinear")
    fine = stages["res2"]["project_conv"](fine)
    expected = stages["res2"]["fuse_conv"](torch.cat([fine, coarse], dim=1))
    torch.testing.assert_close(total, expected)


@pytest.mark.parametrize(
    ("decoder", "key", "value", "message"),
    [
        (
            "fpn",
            "MODEL.DDEP.DECODER",
            "unet",
            "DECODER is 'unet'; expected one of pixel_decoder, fp",
        ),
        (
            "deeplab",
            "MODEL.DDEP.DECODER",
            "fpn",
            "_deeplab_backbone, which has no FPN; expected a b",
        ),
        ("fpn", "MODEL.FPN.IN_FEATURES", ["res3", "res4", "res5"], "FPN.IN_FEATURES .* needs 4$"),
        ("fpn", "MODEL.MASK_FORMER.SIZE_DIVISIBILITY", 16, "is 16; the FPN needs a multiple of 32"),
        ("deeplab", "MODEL.DDEP.MULTI_SCALE", True, "deeplab has no features at strides 8, 16, 32"),
        (
            "deeplab",
            "MODEL.SEM_SEG_HEAD.IN_FEATURES",
            ["res1", "res5"],
            "IN_FEATURES has res1; the",
        ),
        (
            "deeplab",
            "MODEL.SEM_SEG_HEAD.IN_FEATURES",
            ["res3", "res5"],
            "strides 8, 16; denoising n",
        ),
        (
            "deeplab",
            "MODEL.SEM_SEG_HEAD.PROJECT_CHANNELS",
            [4, 4],
            "is \\[4, 4\\]; expected 1, one f",
        ),
    ],
)
def test_settings_that_a_decoder_cannot_use_are_named(
    decoder: str, key: str, value: Any, message: str
) -> None:
    cfg = config_of(decoder)
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=message):
        build_model(cfg)


def test_multi_scale_needs_the_levels() -> None:
    cfg = config_of("fpn", MULTI_SCALE=True)
    cfg.MODEL.FPN.IN_FEATURES = ["res2", "res3"]
    with pytest.raises(UserError, match=r"strides 4, 8, 16; denoising needs 4, 8, 16, 32"):
        build_model(cfg)
    cfg.MODEL.DDEP.MULTI_SCALE = False
    assert build_model(cfg).sem_seg_head.scale_dim is None


@pytest.mark.parametrize(
    ("name", "stride", "scales"), [("ddep_mask_rcnn_R50_FPN", 32, 3), ("ddep_deeplab_R50", 16, 0)]
)
def test_the_configs_of_pretraining_build(name: str, stride: int, scales: int) -> None:
    """The encoder is a ResNet-50 that torchvision's weights fit; one batch is evaluated."""
    cfg = load_config(str(CONFIGS / f"{name}.yaml"), ["MODEL.DEVICE", "cpu"])
    model = build_model(cfg).eval()
    (encoder,) = encoder_modules(model)
    assert encoder.output_shape()["res5"].stride == stride
    assert sum(p.numel() for p in encoder.parameters()) == 23_454_912  # without norms, frozen
    assert len(model.denoising_head.multi_scale) == scales
    with torch.no_grad():
        (output,) = model([noisy_input(0, 50, 70, 0.5)])
    assert output["denoised"].shape == (3, 50, 70)
