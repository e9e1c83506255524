from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.modeling import build_backbone
from torch import nn

from ddep.checkpoint.loading import from_model_zoo, load_weights
from ddep.errors import UserError


class Renaming(nn.Linear):
    """Was called ``old`` in earlier versions, and renames its weights, as in Mask2Former."""

    def _load_from_state_dict(self, state_dict: dict, prefix: str, *args: Any) -> None:
        for name in [name for name in state_dict if name.startswith(prefix + "old.")]:
            state_dict[name.replace("old.", "")] = state_dict.pop(name)
        super()._load_from_state_dict(state_dict, prefix, *args)


def make_model(classes: int = 3) -> nn.ModuleDict:
    decoder = nn.ModuleDict(
        {
            "input_proj": nn.ModuleList([nn.Linear(4, 4)]),
            "adapter_1": nn.Linear(4, 4),
            "mask_features": nn.Linear(4, 4),
        }
    )
    head = nn.ModuleDict({"pixel_decoder": decoder, "predictor": Renaming(4, classes)})
    return nn.ModuleDict({"backbone": nn.Linear(2, 4), "sem_seg_head": head})


def names(model: nn.Module, start: str = "") -> list[str]:
    return [name for name in model.state_dict() if name.startswith(start)]


def test_every_name_is_reported_once_with_its_outcome() -> None:
    source, model = make_model(), make_model(classes=5)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    state = source.state_dict()
    del state["backbone.bias"]
    state["denoising_head.conv.weight"] = torch.ones(1)
    report = load_weights(model, state, "source.pth", transfer=["backbone", "encoder", "fpn"])

    decoder = "sem_seg_head.pixel_decoder"
    assert sorted(report.loaded) == sorted(
        [
            "backbone.weight",
            f"{decoder}.input_proj.0.weight",
            f"{decoder}.input_proj.0.bias",
            f"{decoder}.adapter_1.weight",
            f"{decoder}.adapter_1.bias",
        ]
    )
    assert report.new == ["backbone.bias"]
    assert report.left_out == [f"{decoder}.mask_features.weight", f"{decoder}.mask_features.bias"]
    assert report.mismatched == {
        "sem_seg_head.predictor.weight": ((3, 4), (5, 4)),
        "sem_seg_head.predictor.bias": ((3,), (5,)),
    }
    assert report.unused == ["denoising_head.conv.weight"]
    for name, tensor in model.state_dict().items():
        expected = source.state_dict()[name] if name in report.loaded else before[name]
        assert torch.equal(tensor, expected), name


def test_weights_that_follow_from_the_config_are_not_loaded() -> None:
    def make(classes: int, no_object: float) -> nn.ModuleDict:
        criterion = nn.Module()
        weight = torch.ones(classes + 1)
        weight[-1] = no_object
        criterion.register_buffer("empty_weight", weight)
        return nn.ModuleDict({"backbone": nn.Linear(2, 4), "criterion": criterion})

    for classes in (3, 5):
        model = make(3, 0.5)
        report = load_weights(model, make(classes, 0.1).state_dict(), "mask2former.pth")
        assert model["criterion"].empty_weight.tolist() == [1.0, 1.0, 1.0, 0.5]
        assert report.loaded == names(model, "backbone")
        assert report.left_out == ["criterion.empty_weight"]
        assert not report.mismatched
        assert report.new == report.unused == []


def test_the_text_of_the_report() -> None:
    source, model = make_model(), make_model(classes=5)
    state = source.state_dict()
    state["denoising_head.conv.weight"] = torch.ones(1)
    report = load_weights(model, state, "source.pth", transfer=["backbone", "encoder", "fpn"])
    rows = [line.split() for line in report.table().splitlines()]
    assert rows[0] == ["loaded", "left", "out", "shape", "mismatch", "new", "unused"]
    assert ["backbone", "2", "0", "0", "0", "0"] in rows
    assert ["mask_features", "0", "2", "0", "0", "0"] in rows
    assert ["predictor", "0", "0", "2", "0", "0"] in rows
    assert ["denoising_head", "0", "0", "0", "0", "1"] in rows
    assert [line.split() for line in report.names().splitlines()][:1] == [
        ["loaded", "backbone.weight"]
    ]
    assert "unused          denoising_head.conv.weight" in report.names().splitlines()
    assert next(report.mismatches()) == (
        "sem_seg_head.predictor.weight is (3, 4) in source.pth and (5, 4) in the model: "
        "left as it was"
    )


def test_names_of_older_versions_are_loaded_by_the_modules_themselves() -> None:
    source, model = make_model(), make_model()
    state = {k.replace("predictor.", "predictor.old."): v for k, v in source.state_dict().items()}
    report = load_weights(model, state, "old.pth")
    assert report.loaded == names(model)
    assert report.unused == report.new == []
    assert torch.equal(
        model["sem_seg_head"]["predictor"].weight, source["sem_seg_head"]["predictor"].weight
    )


def test_a_renamed_weight_of_another_shape_is_a_mismatch() -> None:
    state = make_model(classes=9).state_dict()
    state = {k.replace("predictor.", "predictor.old."): v for k, v in state.items()}
    report = load_weights(make_model(), state, "old.pth")
    assert report.mismatched["sem_seg_head.predictor.weight"] == ((9, 4), (3, 4))
    assert report.new == report.unused == []


def test_the_prefix_of_data_parallel_models_is_dropped() -> None:
    state = {f"module.{name}": tensor for name, tensor in make_model().state_dict().items()}
    model = make_model()
    assert load_weights(model, state, "parallel.pth").loaded == names(model)


def test_no_hook_is_left_behind() -> None:
    model = make_model()
    load_weights(model, make_model().state_dict(), "source.pth")
    model["backbone"] = nn.Linear(3, 4)
    with pytest.raises(RuntimeError, match="size mismatch for backbone.weight"):
        model.load_state_dict(make_model().state_dict())


@pytest.mark.parametrize(
    ("state", "message"),
    [
        (
            {"layers.0.weight": torch.ones(1), "head.weight": torch.ones(1)},
            r"none of the 2 weights in x\.pth fits the model: found layers\.0\.weight, "
            r"head\.weight, \.\.\., expected backbone\.weight, .* tools/convert-pretrained\.py",
        ),
        (
            {"backbone.weight": torch.ones(7, 7)},
            r"backbone\.weight is \(7, 7\) in x\.pth and \(4, 2\) in the model.*use a config",
        ),
    ],
)
def test_a_checkpoint_without_a_fitting_weight_is_an_error(
    state: dict[str, torch.Tensor], message: str
) -> None:
    with pytest.raises(UserError, match=message):
        load_weights(make_model(), state, "x.pth")


def test_transferring_nothing_is_not_an_error() -> None:
    model = make_model()
    state = make_model().state_dict()
    weights = {name: tensor for name, tensor in state.items() if "predictor" not in name}
    report = load_weights(model, weights, "source.pth", transfer=[])
    assert report.loaded == []
    assert report.left_out == list(weights)


def resnet18() -> nn.ModuleDict:
    cfg = get_cfg()
    cfg.MODEL.RESNETS.DEPTH = 18
    cfg.MODEL.RESNETS.RES2_OUT_CHANNELS = 64
    cfg.MODEL.RESNETS.OUT_FEATURES = ["res2", "res3", "res4", "res5"]
    cfg.MODEL.BACKBONE.NAME = "build_resnet_backbone"
    # Other modules, such as pixel decoders, may have names that end like a backbone's.
    return nn.ModuleDict({"backbone": build_backbone(cfg), "stem": nn.Linear(1, 1)})


def test_a_bare_backbone_of_the_model_zoo_is_found() -> None:
    source, model = resnet18(), resnet18()
    weights = {
        name.removeprefix("backbone."): torch.rand_like(tensor)
        for name, tensor in source.state_dict().items()
        if name.startswith("backbone.")
    }
    weights["fc.weight"] = torch.ones(2, 2)
    state = from_model_zoo({"model": weights, "__author__": "torchvision"}, model)
    report = load_weights(model, state, "R-18.pkl")
    assert report.loaded == names(model, "backbone.")
    assert report.unused == ["fc.weight"]
    assert torch.equal(model["backbone"].stem.conv1.weight, weights["stem.conv1.weight"])


def test_caffe2s_names_are_translated() -> None:
    model = resnet18()
    blobs = OrderedDict(
        {
            "conv1_w": torch.rand(64, 3, 7, 7),
            "res_conv1_bn_s": torch.rand(64),
            "res_conv1_bn_b": torch.rand(64),
            "res2_0_branch2a_w": torch.rand(64, 64, 3, 3),
            "res4_1_branch2b_bn_s": torch.rand(256),
            "fc1000_w": torch.from_numpy(np.ones((2, 2), np.float32)),
        }
    )
    state = from_model_zoo({"model": blobs, "__author__": "Caffe2"}, model)
    report = load_weights(model, state, "R-18.pkl")
    loaded = model.state_dict()
    for name, blob in {
        "backbone.stem.conv1.weight": "conv1_w",
        "backbone.stem.conv1.norm.weight": "res_conv1_bn_s",
        "backbone.stem.conv1.norm.bias": "res_conv1_bn_b",
        "backbone.res2.0.conv1.weight": "res2_0_branch2a_w",
        "backbone.res4.1.conv2.norm.weight": "res4_1_branch2b_bn_s",
    }.items():
        assert torch.equal(loaded[name], blobs[blob]), name
        assert name in report.loaded


class ModelWithFPN(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        conv, lateral = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 2, 1)
        self.backbone = nn.ModuleDict({"bottom_up": nn.ModuleDict({"conv": conv})})
        self.backbone["fpn_lateral2"] = lateral


def test_an_encoders_weights_fit_one_in_an_fpn() -> None:
    model = ModelWithFPN()
    state = {"backbone.conv.weight": torch.ones(4, 3, 1, 1), "backbone.fc.weight": torch.ones(2)}
    report = load_weights(model, state, "encoder.pth")
    assert report.loaded == ["backbone.bottom_up.conv.weight"]
    assert report.unused == ["backbone.fc.weight"]
    assert model.backbone["bottom_up"]["conv"].weight.eq(1).all()
    zoo = {"model": {"conv.weight": torch.ones(4, 3, 1, 1), "fc.weight": torch.ones(2)}}
    assert list(from_model_zoo(zoo, model)) == ["backbone.bottom_up.conv.weight", "fc.weight"]


def test_an_fpns_own_weights_stay_where_they_are() -> None:
    model = ModelWithFPN()
    inside, lateral = torch.ones(4, 3, 1, 1), torch.ones(2, 4, 1, 1)
    state = {"backbone.bottom_up.conv.weight": inside, "backbone.fpn_lateral2.weight": lateral}
    state["backbone.conv.weight"] = torch.zeros(4, 3, 1, 1)  # of something else
    report = load_weights(model, state, "fpn.pth")
    assert len(report.loaded) == 2
    assert report.unused == ["backbone.conv.weight"]
    assert model.backbone["bottom_up"]["conv"].weight.eq(1).all()


class ModelWithTrunk(nn.Module):
    weight_groups = {r"trunk\.": "backbone", r"memory\.": "memory"}

    def __init__(self) -> None:
        super().__init__()
        self.trunk = nn.Linear(2, 2)
        self.memory = nn.Linear(2, 2)


def test_a_models_own_groups_are_transferred_and_reported() -> None:
    source, model = ModelWithTrunk(), ModelWithTrunk()
    report = load_weights(model, source.state_dict(), "source.pth", transfer=["fpn"])
    assert report.left_out == ["trunk.weight", "trunk.bias"]
    assert report.loaded == ["memory.weight", "memory.bias"]
    rows = [line.split() for line in report.table().splitlines()]
    assert ["backbone", "0", "2", "0", "0", "0"] in rows
    assert ["memory", "2", "0", "0", "0", "0"] in rows
    assert "loaded          memory.bias" in report.names()
