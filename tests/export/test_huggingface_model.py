"""Round trip: Hugging Face's models become ours, and ours become the same models again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from PIL import Image
from safetensors.torch import load_file
from transformers import (
    AutoImageProcessor,
    Mask2FormerForUniversalSegmentation,
    MaskFormerConfig,
    MaskFormerForInstanceSegmentation,
    PreTrainedModel,
    ResNetConfig,
    SwinConfig,
)
from transformers.models.maskformer.configuration_maskformer import MaskFormerDetrConfig

from ddep.checkpoint.conversion import Conversion
from ddep.errors import UserError
from ddep.export.huggingface_model import to_hugging_face
from tests.huggingface_map import STAGES, converted, randomise_model, saved, small_config
from tests.modeling.mask_former_config import mask_former_config

pytestmark = pytest.mark.slow


def swin() -> SwinConfig:
    return SwinConfig(
        embed_dim=16,
        depths=[2, 1, 3, 1],
        num_heads=[1, 2, 4, 8],
        window_size=4,
        mlp_ratio=2.0,
        drop_path_rate=0.2,
        out_features=STAGES,
    )


def resnet() -> ResNetConfig:
    return ResNetConfig(
        embedding_size=8,
        hidden_sizes=[32, 64, 128, 256],
        depths=[3, 4, 6, 3],
        downsample_in_bottleneck=True,
        out_features=STAGES,
    )


def basic_resnet() -> ResNetConfig:
    return ResNetConfig(
        hidden_sizes=[64, 128, 256, 512],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        out_features=STAGES,
    )


def mask2former(backbone: Any, **changes: Any) -> Mask2FormerForUniversalSegmentation:
    settings = {
        "decoder_layers": 3,
        "num_queries": 7,
        "class_weight": 3.0,
        "mask_weight": 6.0,
        "dice_weight": 7.0,
        "no_object_weight": 0.2,
        "train_num_points": 100,
        "oversample_ratio": 4.0,
        "importance_sample_ratio": 0.5,
        "ignore_value": 254,
        "pre_norm": True,
    }
    config = small_config(backbone_config=backbone, **{**settings, **changes})
    return Mask2FormerForUniversalSegmentation(config)


def maskformer(backbone: Any) -> MaskFormerForInstanceSegmentation:
    decoder = MaskFormerDetrConfig(
        d_model=64,
        decoder_layers=2,
        decoder_ffn_dim=96,
        decoder_attention_heads=4,
        num_queries=7,
        # Our model has one rate for all.
        dropout=0.25,
        attention_dropout=0.25,
        activation_dropout=0.25,
    )
    config = MaskFormerConfig(
        backbone_config=backbone,
        decoder_config=decoder,
        fpn_feature_size=32,
        mask_feature_size=48,
        num_labels=5,
        mask_weight=15.0,
        dice_weight=2.0,
        no_object_weight=0.3,
    )
    return MaskFormerForInstanceSegmentation(config)


DETR_KEYS = [
    f"decoder_config.{key}"
    for key in (
        "d_model",
        "decoder_layers",
        "decoder_ffn_dim",
        "decoder_attention_heads",
        "num_queries",
        "dropout",
        "attention_dropout",
        "activation_dropout",
        "activation_function",
    )
]

MODELS: dict[str, Callable[[], PreTrainedModel]] = {
    "mask2former_swin": lambda: mask2former(swin()),
    "mask2former_resnet50": lambda: mask2former(resnet()),
    "mask2former_resnet18": lambda: mask2former(basic_resnet(), common_stride=8),
    "mask2former_projected": lambda: mask2former(swin(), hidden_dim=32, feature_size=128),
    "mask2former_enforced": lambda: mask2former(swin(), enforce_input_projection=True),
    "maskformer_swin": lambda: maskformer(swin()),
    "maskformer_resnet50": lambda: maskformer(resnet()),
}


@pytest.fixture(scope="module", params=list(MODELS))
def theirs(request: pytest.FixtureRequest) -> PreTrainedModel:
    model = MODELS[request.param]().eval()
    randomise_model(model)
    return model


def ours(conversion: Conversion) -> tuple[torch.nn.Module, CfgNode]:
    cfg = mask_former_config({**conversion.config, "MODEL.DEVICE": "cpu"})
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    model = build_model(cfg).eval()
    conversion.fit(model.state_dict())
    assert conversion.missing == []
    model.load_state_dict(conversion.weights)
    return model, cfg


def flat(settings: dict[Any, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in settings.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", list(value) if isinstance(value, tuple) else value


def test_round_trip(theirs: PreTrainedModel, tmp_path: Path) -> None:
    conversion = converted(theirs)
    # Swin's norm after the last stage is for classification.
    assert all(n.endswith("num_batches_tracked") or ".layernorm." in n for n in conversion.unused)
    model, cfg = ours(conversion)
    exported = to_hugging_face(model.state_dict(), cfg)
    exported.write(str(tmp_path))

    weights, _ = saved(theirs)
    back = load_file(tmp_path / "model.safetensors")
    assert back.keys() == weights.keys()
    for name, tensor in weights.items():
        assert torch.equal(back[name], tensor), name
        assert back[name].dtype == tensor.dtype

    again, info = type(theirs).from_pretrained(tmp_path, output_loading_info=True)
    assert not any(info.values())
    expected, found = (dict(flat(model.config.to_dict())) for model in (theirs, again))
    told = [key for key in expected if not key.endswith(("_name_or_path", "dtype"))]
    # Most of DETR's config concerns only DETR.
    told = [k for k in told if not k.startswith("decoder_config.") or k in DETR_KEYS]
    assert {key: found.get(key) for key in told} == {key: expected[key] for key in told}

    with torch.no_grad():
        pixels = torch.randn(1, 3, 64, 96)
        outputs = model.sem_seg_head(model.backbone(pixels))
        result = again.eval()(pixels)
    torch.testing.assert_close(
        outputs["pred_logits"], result.class_queries_logits, rtol=0, atol=1e-4
    )
    torch.testing.assert_close(
        outputs["pred_masks"], result.masks_queries_logits, rtol=0, atol=1e-4
    )


@pytest.fixture(scope="module")
def exportable() -> tuple[torch.nn.Module, CfgNode]:
    return ours(converted(MODELS["mask2former_swin"]()))


def test_labels_and_image_processor(
    exportable: tuple[torch.nn.Module, CfgNode], tmp_path: Path
) -> None:
    model, cfg = exportable
    cfg = cfg.clone()
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [100.0, 110.0, 120.0], [50.0, 60.0, 70.0]
    cfg.INPUT.MIN_SIZE_TEST, cfg.INPUT.MAX_SIZE_TEST = 64, 100
    names = ["sky", "road", "car", "bus", "tree"]
    exported = to_hugging_face(model.state_dict(), cfg, names)
    exported.write(str(tmp_path))
    config = Mask2FormerForUniversalSegmentation.from_pretrained(tmp_path).config
    assert config.id2label == dict(enumerate(names))
    assert config.label2id == {name: index for index, name in enumerate(names)}
    assert config.num_labels == 5

    processor = AutoImageProcessor.from_pretrained(tmp_path)
    assert type(processor).__name__.startswith("Mask2FormerImageProcessor")
    assert processor.ignore_index == cfg.MODEL.SEM_SEG_HEAD.IGNORE_VALUE == 254
    assert processor.num_labels == 5
    assert processor.do_reduce_labels is False
    pixels = [
        np.random.default_rng(0).integers(0, 256, (64, width, 3), dtype=np.uint8)
        for width in (96, 64)
    ]
    found = processor([Image.fromarray(p) for p in pixels], return_tensors="pt")["pixel_values"]
    expected = torch.zeros(2, 3, 64, 96)
    for image, array in zip(expected, pixels, strict=True):
        values = torch.from_numpy(array).permute(2, 0, 1)
        image[..., : array.shape[1]] = (values - model_mean(cfg)) / model_std(cfg)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5)
    # Sizes are those of evaluation.
    large = Image.fromarray(np.zeros((200, 400, 3), dtype=np.uint8))
    assert processor(large, return_tensors="pt")["pixel_values"].shape[-2:] == (64, 128)


def model_mean(cfg: CfgNode) -> torch.Tensor:
    return torch.tensor(cfg.MODEL.PIXEL_MEAN).view(3, 1, 1)


def model_std(cfg: CfgNode) -> torch.Tensor:
    return torch.tensor(cfg.MODEL.PIXEL_STD).view(3, 1, 1)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("MODEL.BACKBONE.NAME", "TimmBackbone"),
        ("MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME", "TransformerEncoderPixelDecoder"),
        ("MODEL.SEM_SEG_HEAD.NORM", ""),
        ("MODEL.SEM_SEG_HEAD.IN_FEATURES", ["res3", "res4", "res5"]),
        ("MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE", "res5"),
        ("MODEL.SWIN.APE", True),
        ("MODEL.SWIN.PATCH_NORM", False),
        ("INPUT.FORMAT", "BGR"),
    ],
)
def test_what_hugging_face_cannot_express(
    exportable: tuple[torch.nn.Module, CfgNode], key: str, value: Any
) -> None:
    model, cfg = exportable
    cfg = cfg.clone()
    cfg.merge_from_list([key, value])
    with pytest.raises(UserError, match=f"^{key} is .*; Hugging Face's classes can express"):
        to_hugging_face(model.state_dict(), cfg)


def test_a_weight_without_a_place(exportable: tuple[torch.nn.Module, CfgNode]) -> None:
    model, cfg = exportable
    weights = {**model.state_dict(), "denoising_head.weight": torch.ones(1)}
    with pytest.raises(UserError, match="no place for denoising_head.weight"):
        to_hugging_face(weights, cfg)
