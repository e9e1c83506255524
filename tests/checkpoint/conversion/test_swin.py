"""Converted Swins, compared with Hugging Face's, which pads like the original, and timm's."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import timm
import torch
from transformers import SwinBackbone, SwinConfig

from ddep.checkpoint.conversion import convert
from ddep.errors import UserError
from ddep.tasks import load_config
from tests.checkpoint.conversion.converting import (
    State,
    assert_features,
    backbone,
    randomise,
    uninitialised,
)
from tests.modeling.backbone.test_swin import joined

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[3]
NAMES = {(96, 6): "tiny", (96, 18): "small", (128, 18): "base", (192, 18): "large"}


def variants() -> list[dict]:
    """The Swins that the configs name, as Hugging Face's arguments."""
    found = {}
    for path in sorted((ROOT / "configs").rglob("*.yaml")):
        cfg = load_config(str(path))
        swin = cfg.MODEL.SWIN
        if cfg.MODEL.BACKBONE.NAME == "D2SwinTransformer":
            variant = {
                "embed_dim": swin.EMBED_DIM,
                "depths": swin.DEPTHS,
                "num_heads": swin.NUM_HEADS,
                "window_size": swin.WINDOW_SIZE,
            }
            found[str(variant)] = variant
    return list(found.values())


def test_every_published_size_is_among_the_configs() -> None:
    assert {NAMES.get((v["embed_dim"], v["depths"][2])) for v in variants()} >= {*NAMES.values()}


@pytest.mark.parametrize("variant", variants(), ids=str)
@torch.no_grad()
def test_original_swins_of_all_configs_have_hugging_faces_features(variant: dict) -> None:
    config = SwinConfig(
        image_size=224, out_features=["stage1", "stage2", "stage3", "stage4"], **variant
    )
    with uninitialised():
        theirs = SwinBackbone._from_config(config, attn_implementation="eager")
    randomise(theirs)
    found, conversion = backbone(dict(joined(theirs.state_dict())))
    assert conversion.format_name == "swin"
    assert conversion.missing == []
    sizes = [(97, 131)] if variant["embed_dim"] > 96 else [(224, 224), (97, 131)]
    for size in sizes:
        images = torch.randn(1, 3, *size)
        assert_features(found(images), list(theirs(images).feature_maps), tolerance=2e-4)


def timm_swin(**arguments: object) -> torch.nn.Module:
    arguments = {"embed_dim": 32, "depths": (2, 2, 3, 1), "num_heads": (1, 2, 4, 8)} | arguments
    return randomise(timm.models.swin_transformer.SwinTransformer(num_classes=5, **arguments))


def original(state: State) -> State:
    """timm's weights under the original names, where patch merging ends a stage."""
    renamed = {}
    for name, tensor in state.items():
        name = re.sub(
            r"layers\.(\d)\.downsample", lambda m: f"layers.{int(m[1]) - 1}.downsample", name
        )
        renamed[name.replace("head.fc.", "head.")] = tensor
    return renamed


@pytest.mark.parametrize("names", ["timm", "original"])
@pytest.mark.parametrize("arguments", [{"window_size": 7}, {"window_size": 4, "img_size": 128}])
@torch.no_grad()
def test_timms_swins_have_timms_features(arguments: dict, names: str) -> None:
    swin = timm_swin(**arguments)
    state = swin.state_dict()
    settings = None if names == "original" else {"pretrained_cfg": {"mean": [0.5] * 3}}
    found, conversion = backbone(original(state) if names == "original" else state, settings)
    assert conversion.config["MODEL.SWIN.DEPTHS"] == [2, 2, 3, 1]
    assert conversion.config["MODEL.SWIN.WINDOW_SIZE"] == arguments["window_size"]
    mean = [127.5] * 3 if settings else [123.675, 116.28, 103.53]
    assert conversion.config["MODEL.PIXEL_MEAN"] == mean
    head = "head." if names == "original" else "head.fc."
    assert set(conversion.unused) == {"norm.weight", "norm.bias", f"{head}weight", f"{head}bias"}
    # Only our model has norms of the features: they stay as initialised.
    assert conversion.missing == [
        f"backbone.norm{i}.{kind}" for i in range(4) for kind in ("weight", "bias")
    ]
    for i in range(4):
        torch.nn.init.ones_(found.get_submodule(f"norm{i}").weight)
        torch.nn.init.zeros_(found.get_submodule(f"norm{i}").bias)
    # These sizes need no padding, in which timm differs from the original.
    side = arguments.get("img_size", 224)
    images = torch.randn(2, 3, side, side)
    maps = swin.forward_intermediates(images, intermediates_only=True)
    expected = [torch.nn.functional.layer_norm(m.movedim(1, -1), m.shape[1:2]) for m in maps]
    assert_features(found(images), [m.movedim(-1, 1) for m in expected])


@torch.no_grad()
def test_absolute_embeddings_become_maps() -> None:
    state = original(timm_swin(window_size=2, img_size=64).state_dict())
    positions = torch.randn(1, 16 * 16, 32)
    state["absolute_pos_embed"] = positions
    found, conversion = backbone(state)
    assert conversion.config["MODEL.SWIN.APE"] is True
    assert conversion.config["MODEL.SWIN.PRETRAIN_IMG_SIZE"] == 64
    expected = positions[0].reshape(16, 16, 32)
    for row, column in [(0, 0), (2, 5), (15, 3)]:
        assert torch.equal(found.absolute_pos_embed[0, :, row, column], expected[row, column])
    for damaged in (positions[:, :-1], positions[0], torch.zeros(1, 32, 15, 17), torch.tensor(1.0)):
        with pytest.raises(UserError, match="expected a square number of positions"):
            convert({**state, "absolute_pos_embed": damaged})


def test_different_windows_are_refused() -> None:
    state = timm_swin(window_size=2, img_size=64).state_dict()
    table = "layers.2.blocks.0.attn.relative_position_bias_table"
    for rows in (49, 8):
        with pytest.raises(UserError, match=rf"9, 9, {rows}, 9 rows; expected \(2w - 1\)\^2 for"):
            convert({**state, table: torch.zeros(rows, 4)})
