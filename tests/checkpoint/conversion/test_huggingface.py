"""The configs that follow from Hugging Face's files; tests/modeling compares the models."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
from transformers import (
    Mask2FormerForUniversalSegmentation,
    ResNetConfig,
)

from ddep.checkpoint.conversion import convert
from ddep.errors import UserError
from tests.huggingface_map import STAGES, State, saved, small_config
from tests.huggingface_maskformer_map import maskformer

Saved = tuple[State, dict[str, Any]]


@pytest.fixture(scope="module")
def mask2former() -> Saved:
    return saved(Mask2FormerForUniversalSegmentation(small_config(decoder_layers=3)))


@pytest.fixture(scope="module")
def first() -> Saved:
    return saved(maskformer(small=True))


MASK2FORMER_CONFIG = {
    "MODEL.META_ARCHITECTURE": "MaskFormer",
    "MODEL.BACKBONE.NAME": "D2SwinTransformer",
    "MODEL.BACKBONE.FREEZE_AT": 0,
    "MODEL.SWIN.EMBED_DIM": 16,
    "MODEL.SWIN.PATCH_SIZE": 4,
    "MODEL.SWIN.DEPTHS": [1, 1, 1, 1],
    "MODEL.SWIN.NUM_HEADS": [1, 2, 4, 8],
    "MODEL.SWIN.WINDOW_SIZE": 7,
    "MODEL.SWIN.MLP_RATIO": 4.0,
    "MODEL.SWIN.QKV_BIAS": True,
    "MODEL.SWIN.PATCH_NORM": True,
    "MODEL.SWIN.DROP_RATE": 0.0,
    "MODEL.SWIN.ATTN_DROP_RATE": 0.0,
    "MODEL.SWIN.DROP_PATH_RATE": 0.0,
    "MODEL.PIXEL_MEAN": [123.675, 116.28, 103.53],
    "MODEL.PIXEL_STD": [58.395, 57.12, 57.375],
    "INPUT.FORMAT": "RGB",
    "MODEL.SEM_SEG_HEAD.NAME": "MaskFormerHead",
    "MODEL.SEM_SEG_HEAD.IN_FEATURES": ["res2", "res3", "res4", "res5"],
    "MODEL.SEM_SEG_HEAD.NUM_CLASSES": 5,
    "MODEL.SEM_SEG_HEAD.NORM": "GN",
    "MODEL.SEM_SEG_HEAD.COMMON_STRIDE": 4,
    "MODEL.SEM_SEG_HEAD.IGNORE_VALUE": 255,
    "MODEL.SEM_SEG_HEAD.CONVS_DIM": 64,
    "MODEL.SEM_SEG_HEAD.MASK_DIM": 48,
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "MSDeformAttnPixelDecoder",
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 2,
    "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME": "MultiScaleMaskedTransformerDecoder",
    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "multi_scale_pixel_decoder",
    "MODEL.MASK_FORMER.SIZE_DIVISIBILITY": 32,
    "MODEL.MASK_FORMER.HIDDEN_DIM": 64,
    "MODEL.MASK_FORMER.NHEADS": 4,
    "MODEL.MASK_FORMER.DEC_LAYERS": 3,
    "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 96,
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 10,
    "MODEL.MASK_FORMER.ENFORCE_INPUT_PROJ": False,
    "MODEL.MASK_FORMER.PRE_NORM": False,
    "MODEL.MASK_FORMER.DROPOUT": 0.0,
    "MODEL.MASK_FORMER.DEEP_SUPERVISION": True,
    "MODEL.MASK_FORMER.NO_OBJECT_WEIGHT": 0.1,
    "MODEL.MASK_FORMER.CLASS_WEIGHT": 2.0,
    "MODEL.MASK_FORMER.MASK_WEIGHT": 5.0,
    "MODEL.MASK_FORMER.DICE_WEIGHT": 5.0,
    "MODEL.MASK_FORMER.TRAIN_NUM_POINTS": 12544,
    "MODEL.MASK_FORMER.OVERSAMPLE_RATIO": 3.0,
    "MODEL.MASK_FORMER.IMPORTANCE_SAMPLE_RATIO": 0.75,
}


def test_mask2formers_config(mask2former: Saved) -> None:
    conversion = convert(mask2former[0], settings=mask2former[1])
    assert conversion.format_name == "hf-mask2former"
    assert conversion.config == MASK2FORMER_CONFIG


def test_weights_without_a_config_get_the_defaults(mask2former: Saved) -> None:
    expected = {**MASK2FORMER_CONFIG, "MODEL.SWIN.DROP_PATH_RATE": 0.1}
    assert convert(mask2former[0]).config == expected


def test_maskformers_config(first: Saved) -> None:
    conversion = convert(first[0], settings=first[1])
    assert conversion.format_name == "hf-maskformer"
    expected = {
        "MODEL.BACKBONE.NAME": "build_resnet_backbone",
        "MODEL.RESNETS.DEPTH": 50,
        "MODEL.RESNETS.STEM_OUT_CHANNELS": 16,
        "MODEL.RESNETS.RES2_OUT_CHANNELS": 64,
        "MODEL.RESNETS.WIDTH_PER_GROUP": 16,
        "MODEL.RESNETS.STRIDE_IN_1X1": False,
        "MODEL.SEM_SEG_HEAD.CONVS_DIM": 32,
        "MODEL.SEM_SEG_HEAD.MASK_DIM": 48,
        "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "BasePixelDecoder",
        "MODEL.MASK_FORMER.TRANSFORMER_DECODER_NAME": "StandardTransformerDecoder",
        "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "res5",
        "MODEL.MASK_FORMER.HIDDEN_DIM": 64,
        "MODEL.MASK_FORMER.NHEADS": 4,
        "MODEL.MASK_FORMER.ENC_LAYERS": 0,
        "MODEL.MASK_FORMER.DEC_LAYERS": 3,
        "MODEL.MASK_FORMER.DIM_FEEDFORWARD": 96,
        "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": 10,
        "MODEL.MASK_FORMER.DROPOUT": 0.0,
        "MODEL.MASK_FORMER.MASK_WEIGHT": 20.0,
    }
    assert expected.items() <= conversion.config.items()


@pytest.mark.parametrize(
    "sizes",
    [
        {"size_divisor": 16, "size": {"shortest_edge": 640, "longest_edge": 2560}},
        {"size_divisibility": 16, "size": 640, "max_size": 2560},
    ],
)
def test_the_image_processor_decides_the_input(mask2former: Saved, sizes: dict[str, Any]) -> None:
    processor = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.2, 0.25, 0.3], **sizes}
    config = convert(mask2former[0], settings={"image_processor": processor}).config
    assert config["MODEL.PIXEL_MEAN"] == [127.5, 102.0, 76.5]
    assert config["MODEL.PIXEL_STD"] == [51.0, 63.75, 76.5]
    assert config["MODEL.MASK_FORMER.SIZE_DIVISIBILITY"] == 16
    assert config["INPUT.MIN_SIZE_TEST"] == 640
    assert config["INPUT.MAX_SIZE_TEST"] == 2560


def test_a_processor_with_one_fixed_size_sets_no_sizes(mask2former: Saved) -> None:
    settings = {"image_processor": {"size": {"height": 384, "width": 384}}}
    assert not [key for key in convert(mask2former[0], settings=settings).config if "_TEST" in key]


def test_files_from_before_transformers_5(mask2former: Saved) -> None:
    """They hold the index of Swin's relative positions, and no norm after the last stage."""
    block = "model.pixel_level_module.encoder.encoder.layers.0.blocks.0.attention.self."
    old = {name: tensor for name, tensor in mask2former[0].items() if ".layernorm." not in name}
    old |= {name: t for name, t in mask2former[0].items() if ".transformer_module." in name}
    index = torch.arange(49 * 49).view(49, 49)
    old[f"{block}relative_position_index"] = index
    conversion = convert(old)
    assert conversion.unused == []
    name = "backbone.layers.0.blocks.0.attn.relative_position_index"
    assert torch.equal(conversion.weights[name], index)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"activation_function": "gelu"}, "activation_function 'gelu'; Mask2Former has 'relu'"),
        ({"feature_strides": [8, 16, 32, 64]}, r"feature_strides \[8, .*; Mask2Former has \[4, "),
        ({"dropout": "much"}, "dropout 'much'; expected a value such as 0.0"),
        ({"pre_norm": 1}, "pre_norm 1; expected a value such as False"),
        ({"backbone_config": [1]}, r"backbone_config \[1\]; expected keys and values"),
        ({"backbone_config": {"hidden_act": "relu"}}, "hidden_act 'relu'; our Swin has 'gelu'"),
        (
            {"backbone_config": {"use_absolute_embeddings": True}},
            "use_absolute_embeddings True; our Swin has False",
        ),
        ({"image_processor": {"image_mean": [1, 2]}}, r"image_mean \[1, 2\]; expected 3 numbers"),
        (
            {"image_processor": {"do_normalize": False}},
            r"preprocessor_config\.json has do_normalize False; .* True",
        ),
    ],
)
def test_configs_of_other_models(mask2former: Saved, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        convert(mask2former[0], settings={**mask2former[1], **changes})


def test_a_resnet_must_have_all_features(first: Saved) -> None:
    settings = {**first[1], "backbone_config": {"out_features": ["stage4"]}}
    with pytest.raises(UserError, match=r"out_features \['stage4'\]; our ResNet has"):
        convert(first[0], settings=settings)


def test_maskformers_decoder_must_be_detrs(first: Saved) -> None:
    settings = {**first[1], "decoder_config": {"model_type": "conditional_detr"}}
    with pytest.raises(UserError, match="model_type 'conditional_detr'; MaskFormer has 'detr'"):
        convert(first[0], settings=settings)


@pytest.mark.parametrize(
    ("removed", "message"),
    [
        (r"\.layers\.1\.self_attn\.k_proj\.bias$", "k_proj.bias is not in the file"),
        (r"\.attention\.self\.query\.weight$", "query.weight is not in the file"),
        (r"patch_embeddings\.projection", "backbone is not Hugging Face's Swin or ResNet: found"),
        (r"layers\.0\..*relative_position_bias_table$", "bias_table is not in the file"),
        (r"^class_predictor\.bias$", r"class_embed\.bias is not in the file"),
    ],
)
def test_weights_that_are_not_there(mask2former: Saved, removed: str, message: str) -> None:
    weights = {n: t for n, t in mask2former[0].items() if not re.search(removed, n)}
    assert len(weights) < len(mask2former[0])
    with pytest.raises(UserError, match=message):
        convert(weights)


def test_other_feed_forward_networks() -> None:
    theirs = Mask2FormerForUniversalSegmentation(small_config(encoder_feedforward_dim=512))
    with pytest.raises(UserError, match="512 channels; Mask2Former's have 1024"):
        convert(saved(theirs)[0])


def test_a_resnet_of_no_known_depth() -> None:
    backbone = ResNetConfig(
        embedding_size=8, hidden_sizes=[16, 32, 64, 128], depths=[1, 1, 1, 1], out_features=STAGES
    )
    theirs = Mask2FormerForUniversalSegmentation(small_config(backbone_config=backbone))
    with pytest.raises(UserError, match="a ResNet of no depth that we know"):
        convert(saved(theirs)[0])
