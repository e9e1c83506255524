"""Checkpoints of DETR and of Hugging Face's DETR, with random weights of their true names."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from detectron2.modeling import build_model
from transformers import DetrConfig, DetrForObjectDetection, DetrForSegmentation, ResNetConfig

from ddep.checkpoint.conversion import Conversion, convert
from ddep.checkpoint.loading import load_weights
from ddep.errors import UserError
from ddep.export import convert_file
from tests.checkpoint.conversion.converting import config_of
from tests.detr_checkpoints import QUERIES, State, detectron2_state, detr_state
from tests.huggingface_map import STAGES, saved

CONFIG = {
    "MODEL.META_ARCHITECTURE": "Detr",
    "MODEL.BACKBONE.NAME": "build_resnet_backbone",
    "MODEL.BACKBONE.FREEZE_AT": 2,
    "MODEL.RESNETS.DEPTH": 18,
    "MODEL.RESNETS.STRIDE_IN_1X1": False,
    "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
    "MODEL.RESNETS.OUT_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.DETR.NUM_CLASSES": 80,
    "MODEL.DETR.HIDDEN_DIM": 128,
    "MODEL.DETR.NUM_OBJECT_QUERIES": QUERIES,
    "MODEL.DETR.NHEADS": 8,
    "MODEL.DETR.DIM_FEEDFORWARD": 24,
    "MODEL.DETR.ENC_LAYERS": 2,
    "MODEL.DETR.DEC_LAYERS": 3,
    "MODEL.DETR.PRE_NORM": False,
    "MODEL.DETR.POSITION_EMBEDDING": "sine",
    "MODEL.MASK_ON": False,
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "INPUT.FORMAT": "RGB",
}


def assert_all_is_used(conversion: Conversion, state: State) -> None:
    assert [name for name in conversion.unused if not name.endswith("num_batches_tracked")] == []
    used = {source for sources in conversion.sources.values() for source in sources}
    assert used == {name for name in state if not name.endswith("num_batches_tracked")}


def test_a_detector_of_detr() -> None:
    state = detr_state(91)
    conversion = convert(state)
    assert conversion.format_name == "detr"
    assert CONFIG.items() <= conversion.config.items()
    assert_all_is_used(conversion, state)
    found = conversion.weights
    name = "transformer.decoder.layers.1.multihead_attn.in_proj_weight"
    assert torch.equal(found[name], state[name])
    body = "backbone.0.body.layer2.0"
    assert torch.equal(found["backbone.res3.0.conv2.weight"], state[f"{body}.conv2.weight"])
    assert torch.equal(
        found["backbone.res3.0.shortcut.norm.running_var"],
        state[f"{body}.downsample.1.running_var"],
    )


def test_the_classes_are_those_that_coco_has() -> None:
    """The first is the person, 1; the hair drier is the 79th and has the id 89."""
    state = detr_state(91)
    bias = convert(state).weights["class_embed.bias"]
    assert len(bias) == 81
    expected = state["class_embed.bias"]
    assert (bias[0], bias[78], bias[79], bias[80]) == tuple(expected[[1, 89, 90, 91]])


def test_other_classes_are_kept() -> None:
    state = detr_state(91)
    conversion = convert(state, keep_classes=True)
    assert conversion.config["MODEL.DETR.NUM_CLASSES"] == 91
    assert torch.equal(conversion.weights["class_embed.bias"], state["class_embed.bias"])
    assert len(convert(detr_state(20)).weights["class_embed.bias"]) == 21


def test_a_panoptic_model_of_detr() -> None:
    """Its classes are things, then stuff: the first, banner, has the id 92, the last 200."""
    state = detr_state(250, masks=True)
    conversion = convert(state)
    assert_all_is_used(conversion, state)
    assert conversion.config["MODEL.DETR.NUM_CLASSES"] == 133
    assert conversion.config["MODEL.MASK_ON"] is True
    assert conversion.config["MODEL.DETR.NHEADS"] == 8
    bias, expected = conversion.weights["class_embed.bias"], state["detr.class_embed.bias"]
    assert tuple(bias[[0, 80, 132, 133]]) == tuple(expected[[1, 92, 200, 250]])
    name = COCO_CATEGORIES[80]["name"]
    assert name == "banner"
    for name in ("bbox_attention.k_linear.bias", "mask_head.adapter3.weight"):
        assert torch.equal(conversion.weights[name], state[name])


@pytest.mark.parametrize("masks", [False, True])
def test_files_of_the_detectron2_project(masks: bool) -> None:
    """It puts ``detr.`` before all names, and keeps the weights of classes in the loss."""
    theirs = detr_state(250 if masks else 91, masks=masks)
    wrapped = {**detectron2_state(theirs), "criterion.empty_weight": torch.ones(len(theirs))}
    outputs = 251 if masks else 92
    wrapped["criterion.empty_weight"] = torch.linspace(0, 1, outputs)
    conversion = convert(wrapped)
    assert_all_is_used(conversion, wrapped)
    expected = convert(theirs)
    weights = dict(conversion.weights)
    assert len(weights.pop("criterion.empty_weight")) == (134 if masks else 81)
    assert weights.keys() == expected.weights.keys()
    assert all(torch.equal(weights[name], expected.weights[name]) for name in weights)
    assert conversion.config == expected.config


@pytest.mark.parametrize(("masks", "wrapped"), [(False, False), (True, False), (True, True)])
def test_the_tool_writes_what_a_model_loads_whole(
    tmp_path: Path, masks: bool, wrapped: bool
) -> None:
    state = detr_state(250 if masks else 91, masks=masks)
    state = detectron2_state(state) if wrapped else state
    torch.save({"model": state, "optimizer": {}, "epoch": 3}, tmp_path / "theirs.pth")
    found = convert_file(str(tmp_path / "theirs.pth"), str(tmp_path / "ours.pth"))
    assert found.format_name == "detr"
    assert not found.missing and not found.resized
    assert all(name.endswith("num_batches_tracked") for name in found.unused)
    model = build_model(config_of({**found.config, "MODEL.DEVICE": "cpu"}))
    weights = torch.load(tmp_path / "ours.pth", weights_only=True)["model"]
    report = load_weights(model, dict(weights), "ours.pth")
    assert not report.unused and not report.mismatched and not report.new
    assert torch.equal(model.class_embed.bias, weights["class_embed.bias"])


def test_learned_positions() -> None:
    positions = {f"backbone.1.{n}_embed.weight": torch.randn(50, 64) for n in ("row", "col")}
    conversion = convert({**detr_state(91), **positions})
    assert conversion.config["MODEL.DETR.POSITION_EMBEDDING"] == "learned"
    found = conversion.weights["position_embedding.col_embed.weight"]
    assert torch.equal(found, positions["backbone.1.col_embed.weight"])


def test_damaged_and_foreign_files_are_named() -> None:
    state = detr_state(5)
    others = {n.replace("0.body.", "0.trunk."): t for n, t in state.items()}
    with pytest.raises(UserError, match="no ResNet of torchvision or detectron2: found backbone.0"):
        convert(others)
    del state["class_embed.bias"]
    with pytest.raises(UserError, match=r"class_embed\.bias is not in the file"):
        convert(state)


def huggingface(kind: type, *, timm: bool = True, **changes: Any) -> Any:
    """Hugging Face's DETR with random weights and a ResNet of timm or of its own."""
    torch.manual_seed(0)
    sizes = {
        "d_model": 128,
        "num_queries": QUERIES,
        "encoder_layers": 2,
        "decoder_layers": 3,
        "encoder_ffn_dim": 24,
        "decoder_ffn_dim": 24,
        "num_labels": 91,
    }
    if timm:
        sizes["backbone"] = "resnet18"
    else:
        sizes["backbone_config"] = ResNetConfig(
            embedding_size=64,
            hidden_sizes=[64, 128, 256, 512],
            depths=[2, 2, 2, 2],
            layer_type="basic",
            out_features=STAGES,
        )
    return kind(DetrConfig(**{**sizes, **changes})).eval()


@pytest.mark.parametrize("kind", [DetrForObjectDetection, DetrForSegmentation])
@pytest.mark.parametrize("timm", [True, False])
def test_hugging_faces_files_and_state_dicts(kind: type, timm: bool) -> None:
    model = huggingface(kind, timm=timm)
    state, settings = saved(model)
    conversion = convert(state, settings=settings)
    assert conversion.format_name == "hf-detr"
    assert_all_is_used(conversion, state)
    masks = kind is DetrForSegmentation
    expected = {**CONFIG, "MODEL.MASK_ON": masks, "MODEL.DETR.DEEP_SUPERVISION": False}
    assert expected.items() <= conversion.config.items()
    in_memory = model.state_dict()
    other = convert(in_memory)
    assert_all_is_used(other, in_memory)
    assert other.weights.keys() == conversion.weights.keys()
    assert all(torch.equal(other.weights[n], t) for n, t in conversion.weights.items())
    assert other.config == conversion.config
    # The same names as those of a file of DETR.
    assert conversion.weights.keys() == convert(detr_state(91, masks=masks)).weights.keys()


def test_hugging_faces_settings() -> None:
    model = huggingface(DetrForObjectDetection, backbone="resnet50", dilation=True, dropout=0.2)
    state, settings = saved(model)
    settings["image_processor"] = {"size": {"shortest_edge": 640, "longest_edge": 1000}}
    config = convert(state, settings=settings).config
    assert config["MODEL.BACKBONE.NAME"] == "build_dc5_resnet_backbone"
    assert config["MODEL.RESNETS.DEPTH"] == 50
    assert config["MODEL.DETR.DROPOUT"] == 0.2
    assert (config["INPUT.MIN_SIZE_TEST"], config["INPUT.MAX_SIZE_TEST"]) == (640, 1000)
    config_of(config)  # all keys exist


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "gelu"}, "activation_function 'gelu'; our Detr has 'relu'"),
        ({"decoder_attention_heads": 4}, "decoder_attention_heads 4; our Detr has 8"),
        ({"bbox_cost": 3}, "bbox_cost 3; our Detr has 5"),
        ({"dropout": "much"}, "dropout 'much'; expected a value such as 0.1"),
    ],
)
def test_settings_of_other_models(changes: dict[str, Any], message: str) -> None:
    state = huggingface(DetrForObjectDetection).state_dict()
    with pytest.raises(UserError, match=message):
        convert(state, settings=changes)
