"""Converted ConvNeXts and vision transformers against timm's own models."""

from __future__ import annotations

import pytest
import timm
import torch
from transformers import (
    Dinov2Config,
    Dinov2Model,
    Dinov2WithRegistersConfig,
    Dinov2WithRegistersModel,
    DINOv3ViTConfig,
    DINOv3ViTModel,
)

from ddep.checkpoint.conversion import convert
from ddep.errors import UserError
from tests.checkpoint.conversion.converting import (
    State,
    assert_features,
    backbone,
    randomise,
    uninitialised,
)
from tests.checkpoint.small_checkpoints import dinov2

pytestmark = pytest.mark.slow


@pytest.mark.parametrize(
    ("name", "is_told"),
    [
        ("convnext_tiny", False),
        ("convnext_atto", False),
        ("convnextv2_femto", False),
        ("convnext_nano_ols", True),
        ("test_convnext", True),
    ],
)
@torch.no_grad()
def test_convnexts_have_timms_features(name: str, is_told: bool) -> None:
    with uninitialised():
        theirs = timm.create_model(name, num_classes=3)
    settings = {"architecture": name} if is_told else None
    found, conversion = backbone(randomise(theirs).state_dict(), settings)
    assert conversion.format_name == "convnext"
    assert conversion.config["MODEL.DDEP.TIMM.NAME"] == name
    assert conversion.missing == []
    assert all(name.startswith("head.") for name in conversion.unused)
    images = torch.randn(2, 3, 64, 96)
    assert_features(found(images), theirs.forward_intermediates(images, intermediates_only=True))


def tokens(model: torch.nn.Module, images: torch.Tensor) -> list[torch.Tensor]:
    """Outputs (B,C,rows,columns) of the four blocks that the backbone takes from 12."""
    return model.forward_intermediates(
        images, indices=[2, 5, 8, 11], norm=False, intermediates_only=True
    )


@pytest.mark.parametrize(
    ("name", "is_told", "mean"),
    [
        ("vit_tiny_patch16_224", False, 127.5),
        ("vit_tiny_patch16_384", False, 127.5),
        ("vit_small_patch14_dinov2", False, 123.675),
        ("vit_small_patch14_reg4_dinov2", False, 123.675),
        ("deit3_small_patch16_224", True, 123.675),
    ],
)
@torch.no_grad()
def test_transformers_have_timms_features(name: str, is_told: bool, mean: float) -> None:
    with uninitialised():
        theirs = timm.create_model(name, num_classes=3, dynamic_img_size=True)
    settings = {"architecture": name} if is_told else None
    found, conversion = backbone(randomise(theirs).state_dict(), settings)
    assert conversion.format_name == "vit"
    assert conversion.config["MODEL.DDEP.TIMM.NAME"] == name
    assert conversion.config["MODEL.PIXEL_MEAN"][0] == mean
    assert conversion.missing == []
    assert conversion.unused == ["norm.weight", "norm.bias", "head.weight", "head.bias"]
    patch = theirs.patch_embed.patch_size[0]
    images = torch.randn(1, 3, 5 * patch, 7 * patch)
    for ours, expected in zip(tokens(found.model, images), tokens(theirs, images), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    assert found(images)["res5"].shape[1] == theirs.embed_dim


AUTHORS_NAMES = {
    "patch_embeddings.projection": "patch_embed.proj",
    "position_embeddings": "pos_embed",
    "embeddings.": "",
    "layernorm": "norm",
    "encoder.layer": "blocks",
    "attention.o_proj": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
}


def original_dinov2(state: State) -> State:
    """Hugging Face's weights under the authors' names, with query, key and value joined."""
    found = {}
    for name, tensor in state.items():
        target = name
        for theirs, authors in AUTHORS_NAMES.items():
            target = target.replace(theirs, authors)
        if ".q_proj." in name:
            parts = [state[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
            found[target.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
        elif ".k_proj." not in name and ".v_proj." not in name:
            found[target] = tensor
    return found


@pytest.mark.parametrize("has_registers", [False, True])
@torch.no_grad()
def test_dinov2_has_hugging_faces_features(has_registers: bool) -> None:
    settings = {"hidden_size": 384, "num_attention_heads": 6, "image_size": 518, "patch_size": 14}
    with uninitialised():
        if has_registers:
            theirs = Dinov2WithRegistersModel(
                Dinov2WithRegistersConfig(num_register_tokens=4, **settings)
            )
        else:
            theirs = Dinov2Model(Dinov2Config(**settings))
    randomise(theirs)
    found, conversion = backbone(original_dinov2(theirs.state_dict()))
    assert conversion.format_name == "dinov2"
    kind = "reg4_" if has_registers else ""
    assert conversion.config["MODEL.DDEP.TIMM.NAME"] == f"vit_small_patch14_{kind}dinov2"
    assert conversion.missing == []
    assert set(conversion.unused) == {"mask_token", "norm.weight", "norm.bias"}
    images = torch.randn(1, 3, 518, 518)
    states = theirs(images, output_hidden_states=True).hidden_states
    prefix = 5 if has_registers else 1
    for ours, index in zip(tokens(found.model, images), (3, 6, 9, 12), strict=True):
        expected = states[index][:, prefix:].transpose(1, 2).unflatten(2, (37, 37))
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


DINOV3_NAMES = {
    "embeddings.patch_embeddings": "patch_embed.proj",
    "embeddings.register_tokens": "storage_tokens",
    "embeddings.": "",
    "model.layer": "blocks",
    "attention.o_proj": "attn.proj",
    "layer_scale1.lambda1": "ls1.gamma",
    "layer_scale2.lambda1": "ls2.gamma",
    "mlp.up_proj": "mlp.fc1",
    "mlp.down_proj": "mlp.fc2",
}


def original_dinov3(state: State) -> State:
    """Hugging Face's weights under the authors' names, with query, key and value joined."""
    found = {}
    for name, tensor in state.items():
        target = name
        for theirs, authors in DINOV3_NAMES.items():
            target = target.replace(theirs, authors)
        if "attention.q_proj" in name:
            parts = [state.get(name.replace("q_proj", f"{part}_proj")) for part in "qkv"]
            parts = [torch.zeros_like(tensor) if part is None else part for part in parts]
            found[target.replace("attention.q_proj", "attn.qkv")] = torch.cat(parts)
        elif ".k_proj." not in name and ".v_proj." not in name:
            found[target] = tensor
    return found


@pytest.mark.parametrize("has_biases", [False, True])
@torch.no_grad()
def test_dinov3_has_hugging_faces_features(has_biases: bool) -> None:
    """With rotary positions and registers, on images that are not square."""
    settings = {"hidden_size": 384, "intermediate_size": 1536, "num_attention_heads": 6}
    with uninitialised():
        theirs = DINOv3ViTModel(DINOv3ViTConfig(num_register_tokens=4, **settings))
    randomise(theirs)
    for name, parameter in theirs.named_parameters():
        if name.endswith(("q_proj.bias", "v_proj.bias")) and not has_biases:
            parameter.zero_()
    found, conversion = backbone(original_dinov3(theirs.state_dict()))
    assert conversion.format_name == "dinov3"
    suffix = "_qkvb" if has_biases else ""
    assert conversion.config["MODEL.DDEP.TIMM.NAME"] == f"vit_small_patch16_dinov3{suffix}"
    assert conversion.missing == []
    images = torch.randn(1, 3, 80, 112)
    states = theirs(images, output_hidden_states=True).hidden_states
    # There the last block's output is normalised.
    for ours, index in zip(tokens(found.model, images)[:3], (3, 6, 9), strict=True):
        expected = states[index][:, 5:].transpose(1, 2).unflatten(2, (5, 7))
        torch.testing.assert_close(ours, expected, atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_timms_dinov3_keeps_its_names() -> None:
    with uninitialised():
        theirs = timm.create_model("vit_small_patch16_dinov3", dynamic_img_size=True)
    state = randomise(theirs).state_dict()
    found, conversion = backbone(state)
    assert conversion.format_name == "dinov3"
    assert conversion.config["MODEL.DDEP.TIMM.NAME"] == "vit_small_patch16_dinov3"
    assert (conversion.missing, conversion.unused) == ([], ["norm.weight", "norm.bias"])
    images = torch.randn(1, 3, 64, 96)
    for ours, expected in zip(tokens(found.model, images), tokens(theirs, images), strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


@torch.no_grad()
def test_the_giant_dinov2_has_its_swiglu() -> None:
    """timm's own loading of these names is the reference."""
    arguments = {"embed_dim": 24, "depth": 2, "num_heads": 2, "img_size": 28}
    theirs = timm.create_model("vit_giant_patch14_dinov2", **arguments)
    state = randomise(theirs).state_dict()
    original = {
        name.replace(".fc1.", ".w12.").replace(".fc2.", ".w3."): tensor
        for name, tensor in state.items()
    }
    conversion = convert({**original, "mask_token": torch.zeros(1, 24)})
    for name, tensor in state.items():
        if not name.startswith("norm."):
            assert torch.equal(conversion.weights[f"backbone.model.{name}"], tensor)
    assert conversion.config == {}


@torch.no_grad()
def test_dinov2_with_patches_of_16_is_as_timm_loads_it() -> None:
    state = dinov2()
    arguments = {"embed_dim": 16, "depth": 2, "num_heads": 2, "img_size": 96, "patch_size": 16}
    name = "vit_small_patch14_reg4_dinov2"
    model = timm.create_model(name, **arguments)
    expected = timm.models.vision_transformer.checkpoint_filter_fn(dict(state), model)
    conversion = convert(state)
    conversion.fit(
        {f"backbone.model.{name}": tensor for name, tensor in model.state_dict().items()}
    )
    assert conversion.resized == {
        "backbone.model.patch_embed.proj.weight": ((16, 3, 14, 14), (16, 3, 16, 16)),
        "backbone.model.pos_embed": ((1, 16, 16), (1, 36, 16)),
    }
    for name, tensor in conversion.weights.items():
        assert torch.equal(tensor, expected[name.removeprefix("backbone.model.")]), name


def test_damaged_tokens_are_named() -> None:
    state = dinov2()
    for token in (torch.zeros(1, 1, 8), torch.zeros(1, 2, 16)):
        with pytest.raises(UserError, match=r"cls_token has shape .* expected the same number of"):
            convert({**state, "cls_token": token})
    del state["cls_token"]
    with pytest.raises(UserError, match="cls_token is not in the file, but others that go with"):
        convert(state)
