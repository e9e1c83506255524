from __future__ import annotations

from itertools import product

import pytest
import torch

from ddep.errors import UserError
from ddep.modeling.transformer_decoder import StandardTransformerDecoder
from tests.huggingface_map import randomise
from tests.modeling.mask_former_config import (
    MASKFORMER_ADE20K_R50,
    MASKFORMER_SMALL,
    mask_former_config,
)

MASK_FORMER = "MODEL.MASK_FORMER."


def build(in_channels: int = 128, **changes) -> StandardTransformerDecoder:
    """A decoder in training mode, where it returns all layers; there is no dropout."""
    settings = {**MASKFORMER_SMALL, **{MASK_FORMER + key: value for key, value in changes.items()}}
    decoder = StandardTransformerDecoder(mask_former_config(settings), in_channels, True)
    randomise(decoder)
    return decoder.train()


def random_inputs(channels: int = 128, batch: int = 2) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(batch, channels, 3, 4), torch.randn(batch, 48, 24, 32)


@torch.no_grad()
def test_masks_and_classes_come_from_the_queries():
    decoder = build()
    feature, mask_features = random_inputs()
    outputs = decoder(feature, mask_features)
    queries, _ = decoder.transformer(decoder.input_proj(feature), decoder.query_embed.weight)
    layers = [*outputs["aux_outputs"], outputs]
    assert len(layers) == len(queries) == 3
    for layer, query in zip(layers, queries, strict=True):
        assert layer["pred_logits"].shape == (2, 10, 6)
        torch.testing.assert_close(layer["pred_logits"], decoder.class_embed(query))
        embedding = decoder.mask_embed(query)
        assert layer["pred_masks"].shape == (2, 10, 24, 32)
        expected = (embedding[1, 7, :, None, None] * mask_features[1]).sum(0)
        torch.testing.assert_close(layer["pred_masks"][1, 7], expected, atol=1e-4, rtol=0)


@torch.no_grad()
def test_without_deep_supervision_the_last_layer_stays_the_same():
    deep, shallow = build(), build(DEEP_SUPERVISION=False)
    inputs = random_inputs()
    outputs, expected = shallow(*inputs), deep(*inputs)
    assert outputs["aux_outputs"] == []
    assert deep.eval()(*inputs)["aux_outputs"] == []
    for name in ("pred_logits", "pred_masks"):
        assert torch.equal(outputs[name], expected[name])


def test_projection():
    assert isinstance(build(64).input_proj, torch.nn.Identity)
    assert build(64, ENFORCE_INPUT_PROJ=True).input_proj.weight.shape == (64, 64, 1, 1)
    assert build(32).input_proj.weight.shape == (64, 32, 1, 1)


def test_every_parameter_learns():
    for pre_norm, enc_layers in product((False, True), (0, 1)):
        decoder = build(PRE_NORM=pre_norm, ENC_LAYERS=enc_layers).train()
        outputs = decoder(*random_inputs())
        total = sum(
            layer[name].square().mean()
            for layer in [outputs, *outputs["aux_outputs"]]
            for name in ("pred_logits", "pred_masks")
        )
        total.backward()
        for name, parameter in decoder.named_parameters():
            assert parameter.grad is not None, name
            assert parameter.grad.isfinite().all(), name
            # The first queries are all zero, so self-attention cannot distinguish them; with a
            # LayerNorm before it, all are that norm's bias.
            first = name.startswith(("transformer.decoder.layers.0.self_attn.in_proj",))
            first |= name == "transformer.decoder.layers.0.norm1.weight"
            assert first or parameter.grad.any(), name


def test_names_and_shapes_are_maskformers():
    """Those of the decoder of MaskFormer's ResNet-50 for 133 classes, on res5."""
    with torch.device("meta"):
        decoder = StandardTransformerDecoder(mask_former_config(MASKFORMER_ADE20K_R50), 2048, True)

    def pair(name: str, outputs: int, *inputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, *inputs), f"{name}.bias": (outputs,)}

    expected = {"query_embed.weight": (100, 256)}
    expected |= pair("input_proj", 256, 2048, 1, 1) | pair("transformer.decoder.norm", 256)
    expected |= pair("class_embed", 134, 256)
    for i in range(3):
        expected |= pair(f"mask_embed.layers.{i}", 256, 256)
    for i in range(6):
        layer = f"transformer.decoder.layers.{i}."
        for name in ("self_attn", "multihead_attn"):
            expected[f"{layer}{name}.in_proj_weight"] = (768, 256)
            expected[f"{layer}{name}.in_proj_bias"] = (768,)
            expected |= pair(f"{layer}{name}.out_proj", 256, 256)
        expected |= pair(f"{layer}linear1", 2048, 256) | pair(f"{layer}linear2", 256, 2048)
        for name in ("norm1", "norm2", "norm3"):
            expected |= pair(f"{layer}{name}", 256)
    assert {key: tuple(value.shape) for key, value in decoder.state_dict().items()} == expected


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"DEC_LAYERS": 0}, "DEC_LAYERS is 0; expected at least 1"),
        ({"HIDDEN_DIM": 66}, "HIDDEN_DIM is 66; expected a multiple of 4"),
        ({"HIDDEN_DIM": 64, "NHEADS": 6}, "HIDDEN_DIM is 64; .*NHEADS 6"),
        (
            {"TRANSFORMER_IN_FEATURE": "multi_scale_pixel_decoder"},
            "needs one feature, such as res5",
        ),
    ],
)
def test_wrong_settings(changes, message):
    with pytest.raises(UserError, match=message):
        build(**changes)


@torch.no_grad()
def test_without_classes_the_masks_are_the_same():
    settings = mask_former_config(MASKFORMER_SMALL)
    with_classes = StandardTransformerDecoder(settings, 128, True)
    without = StandardTransformerDecoder(settings, 128, False)
    state = with_classes.state_dict()
    without.load_state_dict({k: v for k, v in state.items() if not k.startswith("class_embed")})
    inputs = random_inputs()
    outputs, expected = without(*inputs), with_classes(*inputs)
    for layer, other in zip(
        [*outputs.pop("aux_outputs"), outputs],
        [*expected["aux_outputs"], expected],
        strict=True,
    ):
        assert layer.keys() == {"pred_masks"}
        assert torch.equal(layer["pred_masks"], other["pred_masks"])
