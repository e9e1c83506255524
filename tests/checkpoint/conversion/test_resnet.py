"""Converted ResNets, compared with torchvision's, timm's and detectron2's own loading."""

from __future__ import annotations

import pickle
import re
from pathlib import Path

import pytest
import timm
import torch
import torchvision
from detectron2.checkpoint import DetectionCheckpointer
from detectron2.modeling import build_backbone
from torch import nn

from ddep.checkpoint.conversion import convert
from ddep.errors import UserError
from tests.checkpoint.conversion.converting import (
    assert_features,
    backbone,
    config_of,
    randomise,
    uninitialised,
)
from tests.checkpoint.small_checkpoints import caffe2_resnet, resnet

pytestmark = pytest.mark.slow

IMAGES = (2, 3, 97, 131)


@pytest.mark.parametrize("depth", [18, 34, 50, 101, 152])
@torch.no_grad()
def test_plain_resnets_have_torchvisions_and_timms_features(depth: int) -> None:
    with uninitialised():
        theirs = torchvision.models.get_model(f"resnet{depth}", weights=None)
        timms = timm.create_model(f"resnet{depth}", num_classes=3).eval()
    state = randomise(theirs).state_dict()
    found, conversion = backbone(state)
    assert conversion.config["MODEL.RESNETS.DEPTH"] == depth
    assert conversion.missing == []
    assert conversion.unused[:2] == ["fc.weight", "fc.bias"]
    assert all(name.endswith("num_batches_tracked") for name in conversion.unused[2:])
    images = torch.randn(IMAGES)
    expected = []
    x = theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images))))
    for stage in range(1, 5):
        x = theirs.get_submodule(f"layer{stage}")(x)
        expected.append(x)
    assert_features(found(images), expected)
    # timm's have the same names, and a head of their own.
    timms.load_state_dict({n: t for n, t in state.items() if not n.startswith("fc.")}, strict=False)
    settings = {"architecture": f"resnet{depth}"}
    found, conversion = backbone(timms.state_dict(), settings)
    assert conversion.config["MODEL.BACKBONE.NAME"] == "build_resnet_backbone"
    maps = timms.forward_intermediates(images, indices=[1, 2, 3, 4], intermediates_only=True)
    assert_features(found(images), maps)


@pytest.mark.parametrize("name", ["resnext50_32x4d", "wide_resnet50_2"])
@torch.no_grad()
def test_resnext_and_wide_resnet_have_torchvisions_features(name: str) -> None:
    with uninitialised():
        theirs = torchvision.models.get_model(name, weights=None)
    found, _ = backbone(randomise(theirs).state_dict())
    images = torch.randn(IMAGES)
    x = theirs.layer1(theirs.maxpool(theirs.relu(theirs.bn1(theirs.conv1(images)))))
    torch.testing.assert_close(found(images)["res2"], x, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize(
    ("name", "is_told"),
    # Blurred and averaged pooling have no weights; group norm and squeeze-and-excitation do.
    [
        ("resnet26d", True),
        ("resnet50d", False),
        ("resnetaa34d", True),
        ("resnet50_gn", True),
        ("seresnet50", True),
        ("test_resnet", True),
    ],
)
@torch.no_grad()
def test_other_resnets_of_timm_go_to_timms_model(name: str, is_told: bool) -> None:
    with uninitialised():
        theirs = timm.create_model(name)
    state = randomise(theirs).state_dict()
    found, conversion = backbone(state, {"architecture": name} if is_told else None)
    assert conversion.config["MODEL.DDEP.TIMM.NAME"] == name
    assert conversion.missing == []
    assert conversion.unused == ["fc.weight", "fc.bias"]
    images = torch.randn(1, 3, 64, 96)
    maps = theirs.forward_intermediates(images, intermediates_only=True)[-4:]
    assert_features(found(images), maps)


def test_an_unidentified_variant_has_no_config() -> None:
    with uninitialised():
        state = timm.create_model("seresnet50").state_dict()
    assert convert(state).config == {}


def test_other_heads_do_not_change_the_resnet() -> None:
    with uninitialised():
        state = torchvision.models.resnet18().state_dict()
    conversion = convert({**state, "projector.0.weight": torch.ones(2, 2)})
    assert conversion.config["MODEL.RESNETS.DEPTH"] == 18
    assert "projector.0.weight" in conversion.unused


def zoo_files() -> dict[str, dict]:
    """The content of files of detectron2's zoo, by kind."""
    torchvisions = resnet("detectron2")
    detector = {f"backbone.bottom_up.{name}": t for name, t in torchvisions.items()}
    detector["backbone.fpn_lateral2.weight"] = torch.ones(2, 2, 1, 1)
    detector["roi_heads.box_head.fc1.weight"] = torch.ones(2, 2)
    plain = {f"backbone.{name}": t for name, t in torchvisions.items()}
    plain["roi_heads.box_predictor.cls_score.weight"] = torch.ones(2, 2)
    mark = {"__author__": "them", "matching_heuristics": True}
    return {
        "torchvision": {"model": torchvisions, **mark},
        "caffe2": {"model": caffe2_resnet(), "__author__": "Caffe2"},
        "detector": {"model": detector, **mark},
        "without fpn": {"model": plain, **mark},
    }


@pytest.mark.parametrize("kind", ["torchvision", "caffe2", "detector", "without fpn"])
def test_the_zoo_gives_what_detectron2_loads(tmp_path: Path, kind: str) -> None:
    data = zoo_files()[kind]
    state = data["model"]
    conversion = convert(state)
    assert conversion.format_name == "detectron2"
    config = conversion.config
    assert config["MODEL.RESNETS.DEPTH"] == 50
    assert config["MODEL.RESNETS.STRIDE_IN_1X1"] == (kind != "torchvision")
    assert config["INPUT.FORMAT"] == ("RGB" if kind == "torchvision" else "BGR")
    theirs = nn.ModuleDict({"backbone": build_backbone(config_of(config))})
    conversion.fit(theirs.state_dict())
    assert conversion.missing == []

    arrays = {name: tensor.numpy() for name, tensor in state.items()}
    if kind == "detector":
        arrays = {n.replace("bottom_up.", ""): a for n, a in arrays.items() if "bottom_up" in n}
    path = tmp_path / "zoo.pkl"
    path.write_bytes(pickle.dumps(arrays if kind == "caffe2" else {**data, "model": arrays}))
    DetectionCheckpointer(theirs).load(str(path))
    for name, expected in theirs.state_dict().items():
        assert torch.equal(conversion.weights[name], expected), name
        assert conversion.sources[name], name


def test_a_resnext_of_the_zoo_has_its_own_statistics() -> None:
    state = caffe2_resnet()
    for name, tensor in state.items():
        if re.fullmatch(r"res\d_\d+_branch2b_w", name):
            state[name] = tensor[:, : tensor.shape[1] // 2]
    config = convert(state).config
    assert config["MODEL.RESNETS.NUM_GROUPS"] == 2
    assert config["MODEL.RESNETS.STRIDE_IN_1X1"] is False
    assert config["MODEL.PIXEL_STD"] == [57.375, 57.12, 58.395]


def test_two_caffe2_weights_with_one_name_are_refused() -> None:
    state = caffe2_resnet()
    state["res2.0_branch2a_w"] = state["res2_0_branch2a_w"]
    with pytest.raises(UserError, match="two of Caffe2's weights get the same name"):
        convert(state)
