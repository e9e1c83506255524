"""Swin, compared with Hugging Face's, which pads before the cyclic shift like the original."""

from __future__ import annotations

import copy
import re
from collections.abc import Iterator

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.modeling import build_backbone
from torch import nn
from transformers import SwinBackbone, SwinConfig

from ddep.config import add_ddep_config
from ddep.errors import UserError
from ddep.modeling.backbone import D2SwinTransformer

STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}
# Stages that differ in depth, odd ones included; head sizes of 8 and 16.
SMALL = {"embed_dim": 16, "depths": [2, 2, 3, 2], "num_heads": [2, 4, 4, 8]}
TO_ORIGINAL = {
    r"swin\.embeddings\.patch_embeddings\.projection": "patch_embed.proj",
    r"swin\.embeddings\.norm": "patch_embed.norm",
    r"swin\.(encoder\.)?layers": "layers",
    r"layernorm_before": "norm1",
    r"layernorm_after": "norm2",
    r"attention\.relative_position_bias": "attn",
    r"attention\.([qkv])_proj": r"attn.\1",
    r"attention\.o_proj": "attn.proj",
}


def randomise(module: nn.Module, seed: int) -> None:
    """Give every parameter values that matter for the output."""
    generator = torch.Generator().manual_seed(seed)
    for name, parameter in module.named_parameters():
        noise = torch.randn(parameter.shape, generator=generator)
        if "table" in name or parameter.ndim == 1:
            parameter.data = 0.5 * noise + ("norm" in name and name.endswith("weight"))
        else:
            parameter.data = noise / parameter[0].numel() ** 0.5


def rename(name: str) -> str:
    for pattern, replacement in TO_ORIGINAL.items():
        name = re.sub(pattern, replacement, name)
    return re.sub(r"hidden_states_norms\.stage(\d)", lambda m: f"norm{int(m[1]) - 1}", name)


def joined(tensors: dict[str, torch.Tensor]) -> Iterator[tuple[str, torch.Tensor]]:
    """Tensors under the original names, with query, key and value joined as ``qkv``."""
    for name, tensor in tensors.items():
        name = rename(name)
        if ".attn.q." in name:
            key = tensors.__getitem__
            source = next(n for n in tensors if rename(n) == name)
            parts = [key(source.replace("q_proj", f"{part}_proj")) for part in "qkv"]
            yield name.replace(".attn.q.", ".attn.qkv."), torch.cat(parts)
        elif ".attn.k." not in name and ".attn.v." not in name:
            yield name, tensor


def models(window_size: int) -> tuple[SwinBackbone, D2SwinTransformer]:
    config = SwinConfig(
        image_size=224,
        patch_size=4,
        window_size=window_size,
        drop_path_rate=0.0,
        out_features=["stage1", "stage2", "stage3", "stage4"],
        **SMALL,
    )
    theirs = SwinBackbone._from_config(config, attn_implementation="eager").eval()
    randomise(theirs, seed=window_size)
    ours = D2SwinTransformer(window_size=window_size, drop_path_rate=0.0, **SMALL).eval()
    missing, unexpected = ours.load_state_dict(dict(joined(theirs.state_dict())), strict=False)
    assert all(name.endswith("relative_position_index") for name in missing)
    assert set(unexpected) <= {"swin.layernorm.weight", "swin.layernorm.bias"}
    return theirs, ours


def images(height: int, width: int, batch: int = 2) -> torch.Tensor:
    return torch.randn(batch, 3, height, width, generator=torch.Generator().manual_seed(height))


@pytest.mark.parametrize("window_size", [7, 12])
@pytest.mark.parametrize("height, width", [(224, 224), (256, 256), (300, 412), (97, 131)])
def test_features_equal_hugging_face(window_size: int, height: int, width: int) -> None:
    theirs, ours = models(window_size)
    inputs = images(height, width)
    with torch.no_grad():
        expected = theirs(inputs).feature_maps
        features = ours(inputs)
    assert list(features) == list(STRIDES)
    for (name, stride), reference in zip(STRIDES.items(), expected, strict=True):
        assert features[name].shape[-2:] == (-(-height // stride), -(-width // stride))
        assert features[name].is_contiguous()
        torch.testing.assert_close(features[name], reference, atol=1e-4, rtol=0)


@pytest.mark.parametrize("window_size, size", [(7, (97, 131)), (12, (64, 96)), (4, (40, 40))])
def test_gradients_equal_hugging_face(window_size: int, size: tuple[int, int]) -> None:
    theirs, ours = models(window_size)
    ours.train()  # no dropout, but activations are computed again
    inputs = images(*size).requires_grad_()
    gradients = []
    for outputs in (theirs(inputs).feature_maps, ours(inputs).values()):
        inputs.grad = None
        sum(output.square().mean() for output in outputs).backward()
        gradients.append(inputs.grad)
    torch.testing.assert_close(gradients[1], gradients[0], atol=1e-5, rtol=1e-3)
    reference = {n: p.grad for n, p in theirs.named_parameters() if p.grad is not None}
    found = {n: p.grad for n, p in ours.named_parameters()}
    reference = dict(joined(reference))
    assert set(reference) == set(found)
    for name, gradient in reference.items():
        torch.testing.assert_close(
            found[name], gradient, atol=1e-5, rtol=1e-3, msg=lambda m, name=name: f"{name}: {m}"
        )


def test_absolute_position_embeddings_are_resized_to_the_image() -> None:
    model = D2SwinTransformer(**SMALL, ape=True, pretrain_img_size=64, patch_norm=False).eval()
    # Without an image, the tokens are only the embeddings.
    nn.init.zeros_(model.patch_embed.proj.weight)
    nn.init.zeros_(model.patch_embed.proj.bias)
    table = torch.randn(1, 16, 16, 16, generator=torch.Generator().manual_seed(0))
    model.absolute_pos_embed.data = table
    tokens = []
    model.pos_drop.register_forward_hook(lambda *args: tokens.append(args[2]))
    for height, width in [(64, 64), (128, 96), (97, 131)]:
        with torch.no_grad():
            model(torch.zeros(1, 3, height, width))
        size = (-(-width // 4), -(-height // 4))
        expected = [cv2.resize(c.numpy(), size, interpolation=cv2.INTER_CUBIC) for c in table[0]]
        found = tokens.pop()[0].permute(2, 0, 1).numpy()
        np.testing.assert_allclose(found, np.stack(expected), atol=1e-5)


def test_absolute_position_embeddings_have_the_originals_name_and_are_learnt() -> None:
    model = D2SwinTransformer(**SMALL, ape=True, pretrain_img_size=384)
    assert model.state_dict()["absolute_pos_embed"].shape == (1, 16, 96, 96)
    assert model.absolute_pos_embed.std().item() == pytest.approx(0.02, rel=0.05)
    model(images(64, 96))["res2"].square().mean().backward()
    assert model.absolute_pos_embed.grad.any()


def published_names(
    embed_dim: int, depths: list[int], heads: list[int], window: int
) -> dict[str, tuple[int, ...]]:
    """Names and shapes in the original's checkpoints, derived from the paper."""
    shapes = {
        "patch_embed.proj.weight": (embed_dim, 3, 4, 4),
        "patch_embed.proj.bias": (embed_dim,),
        "patch_embed.norm.weight": (embed_dim,),
        "patch_embed.norm.bias": (embed_dim,),
    }
    for i, depth in enumerate(depths):
        dim = embed_dim << i
        linears = {
            "attn.qkv": (3 * dim, dim),
            "attn.proj": (dim, dim),
            "mlp.fc1": (4 * dim, dim),
            "mlp.fc2": (dim, 4 * dim),
        }
        for j in range(depth):
            block = f"layers.{i}.blocks.{j}"
            for linear, shape in linears.items():
                shapes[f"{block}.{linear}.weight"] = shape
                shapes[f"{block}.{linear}.bias"] = shape[:1]
            for norm in ("norm1", "norm2"):
                shapes[f"{block}.{norm}.weight"] = shapes[f"{block}.{norm}.bias"] = (dim,)
            shapes[f"{block}.attn.relative_position_bias_table"] = (
                (2 * window - 1) ** 2,
                heads[i],
            )
            shapes[f"{block}.attn.relative_position_index"] = (window**2, window**2)
        if i < 3:
            shapes[f"layers.{i}.downsample.reduction.weight"] = (2 * dim, 4 * dim)
            shapes[f"layers.{i}.downsample.norm.weight"] = (4 * dim,)
            shapes[f"layers.{i}.downsample.norm.bias"] = (4 * dim,)
        shapes[f"norm{i}.weight"] = shapes[f"norm{i}.bias"] = (dim,)
    return shapes


@pytest.mark.parametrize(
    "embed_dim, depths, heads, window, parameters",
    [
        # Parameters in millions: table 1 of the paper, less the classifier and its norm.
        pytest.param(96, [2, 2, 6, 2], [3, 6, 12, 24], 7, 27.5, id="tiny"),
        pytest.param(96, [2, 2, 18, 2], [3, 6, 12, 24], 7, 48.8, id="small"),
        pytest.param(128, [2, 2, 18, 2], [4, 8, 16, 32], 12, 86.9, id="base"),
        pytest.param(192, [2, 2, 18, 2], [6, 12, 24, 48], 12, 195.2, id="large"),
    ],
)
def test_names_and_shapes_are_the_originals(
    embed_dim: int, depths: list[int], heads: list[int], window: int, parameters: float
) -> None:
    with torch.device("meta"):
        model = D2SwinTransformer(
            embed_dim=embed_dim, depths=depths, num_heads=heads, window_size=window
        )
    found = {name: tuple(tensor.shape) for name, tensor in model.state_dict().items()}
    assert found == published_names(embed_dim, depths, heads, window)
    total = sum(p.numel() for p in model.parameters()) / 1e6
    assert total == pytest.approx(parameters, abs=0.06)


def test_relative_position_index_is_the_originals() -> None:
    model = D2SwinTransformer(**SMALL, window_size=3)
    index = model.layers[0].blocks[0].attn.relative_position_index
    for i in range(9):
        for j in range(9):
            rows, columns = i // 3 - j // 3, i % 3 - j % 3
            assert index[i, j] == (rows + 2) * 5 + (columns + 2)


def test_recomputing_changes_nothing() -> None:
    torch.manual_seed(0)
    plain = D2SwinTransformer(**SMALL, drop_path_rate=0.2).train()
    recomputing = copy.deepcopy(plain)
    recomputing.use_checkpoint = True
    results = []
    for model in (plain, recomputing):
        torch.manual_seed(1)
        features = model(images(64, 96))
        sum(feature.square().mean() for feature in features.values()).backward()
        results.append([*features.values(), *(p.grad for p in model.parameters())])
    for expected, found in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, atol=0, rtol=0)


def test_drop_path_rate_grows_linearly_and_keeps_the_mean() -> None:
    model = D2SwinTransformer(**SMALL, drop_path_rate=0.4).train()
    blocks = [block for stage in model.layers for block in stage.blocks]
    rates = [block.drop_path.drop_prob for block in blocks]
    assert rates == pytest.approx([0.4 * i / 8 for i in range(9)])
    # Each image keeps the branch with probability 0.6, and then counts 1 / 0.6 times.
    torch.manual_seed(0)
    dropped = blocks[-1].drop_path(torch.ones(20000, 2, 2, 1))
    assert dropped.flatten(1).std(dim=1).max() == 0
    assert sorted(dropped.unique().tolist()) == pytest.approx([0, 1 / 0.6])
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(blocks[-1].eval().drop_path(torch.ones(3)), torch.ones(3))


def test_dropout_acts_only_in_training() -> None:
    for rates in ({"drop_rate": 0.5}, {"attn_drop_rate": 0.5}):
        model = D2SwinTransformer(**SMALL, drop_path_rate=0.0, **rates)
        inputs = images(64, 64)
        with torch.no_grad():
            assert not torch.equal(model(inputs)["res2"], model(inputs)["res2"])
            model.eval()
            assert torch.equal(model(inputs)["res2"], model(inputs)["res2"])


def test_qk_scale_replaces_the_usual_one() -> None:
    _, ours = models(7)
    inputs = images(64, 64)
    # Heads of 8 channels in the first stage: twice the usual factor doubles queries and biases.
    scaled = D2SwinTransformer(**SMALL, qk_scale=2 * 8**-0.5).eval()
    scaled.load_state_dict(ours.state_dict())
    for block in ours.layers[0].blocks:
        block.attn.qkv.weight.data[:16] *= 2
        block.attn.qkv.bias.data[:16] *= 2
    with torch.no_grad():
        torch.testing.assert_close(scaled(inputs)["res2"], ours(inputs)["res2"])


def test_unrequested_features_are_not_built() -> None:
    _, full = models(7)
    part = D2SwinTransformer(**SMALL, out_features=["res4", "res3"]).eval()
    unused = part.load_state_dict(full.state_dict(), strict=False)
    assert not unused.missing_keys
    assert {name.rsplit(".", 1)[0].split(".blocks")[0] for name in unused.unexpected_keys} == {
        "layers.3",
        "layers.2.downsample.norm",
        "layers.2.downsample.reduction",
        "norm0",
        "norm3",
    }
    inputs = images(64, 96)
    expected, found = full(inputs), part(inputs)
    assert list(found) == ["res3", "res4"] == list(part.output_shape())
    for name, feature in found.items():
        assert torch.equal(feature, expected[name])
    sum(feature.square().mean() for feature in found.values()).backward()
    assert all(parameter.grad is not None for parameter in part.parameters())


def test_initial_weights() -> None:
    torch.manual_seed(0)
    model = D2SwinTransformer(embed_dim=48, num_heads=(3, 6, 12, 24))
    for module in model.modules():
        if isinstance(module, nn.Linear):
            assert module.weight.std().item() == pytest.approx(0.02, rel=0.05)
            assert module.bias is None or not module.bias.any()
        elif isinstance(module, nn.LayerNorm):
            assert (module.weight == 1).all() and not module.bias.any()
    tables = [p for n, p in model.named_parameters() if n.endswith("table")]
    assert torch.cat([t.flatten() for t in tables]).std().item() == pytest.approx(0.02, rel=0.05)


def test_runs_in_bfloat16_autocast() -> None:
    _, ours = models(7)
    inputs = images(64, 96)
    with torch.no_grad():
        expected = ours(inputs)
        with torch.autocast("cpu", torch.bfloat16):
            found = ours(inputs)
    for name, feature in found.items():
        error = (feature.float() - expected[name]).norm() / expected[name].norm()
        assert error < 0.05


def config(**swin: object) -> CfgNode:
    cfg = get_cfg()
    add_ddep_config(cfg)
    cfg.MODEL.BACKBONE.NAME = "D2SwinTransformer"
    for key, value in swin.items():
        cfg.MODEL.SWIN[key] = value
    return cfg


def test_builds_from_the_config() -> None:
    cfg = config(
        EMBED_DIM=16, DEPTHS=[2, 2, 2, 2], NUM_HEADS=[2, 2, 4, 4], PATCH_NORM=False, QKV_BIAS=False
    )
    model = build_backbone(cfg)
    assert model.size_divisibility == 32
    shapes = {name: (spec.channels, spec.stride) for name, spec in model.output_shape().items()}
    assert shapes == {"res2": (16, 4), "res3": (32, 8), "res4": (64, 16), "res5": (128, 32)}
    names = set(model.state_dict())
    assert not any("patch_embed.norm" in name or "qkv.bias" in name for name in names)
    features = model(images(64, 96))
    for name, (channels, stride) in shapes.items():
        assert features[name].shape == (2, channels, 64 // stride, 96 // stride)


@pytest.mark.parametrize(
    "key, value",
    [
        ("PATCH_SIZE", 2),
        ("WINDOW_SIZE", 0),
        ("MLP_RATIO", 0.0),
        ("QK_SCALE", -1.0),
        ("DROP_RATE", 1.0),
        ("ATTN_DROP_RATE", -0.1),
        ("DROP_PATH_RATE", 1.5),
        ("DEPTHS", [2, 2, 6]),
        ("DEPTHS", [2, 0, 6, 2]),
        ("NUM_HEADS", [3, 6, 12]),
        ("NUM_HEADS", [3, 6, 12, 25]),
        ("EMBED_DIM", 0),
        ("OUT_FEATURES", []),
        ("OUT_FEATURES", ["res1"]),
    ],
)
def test_bad_values_are_named(key: str, value: object) -> None:
    with pytest.raises(UserError, match=rf"^MODEL\.SWIN\.{key} is {re.escape(repr(value))}; exp"):
        build_backbone(config(**{key: value}))


def test_absolute_embeddings_need_an_image_size() -> None:
    with pytest.raises(UserError, match="PRETRAIN_IMG_SIZE is 3"):
        build_backbone(config(APE=True, PRETRAIN_IMG_SIZE=3))
