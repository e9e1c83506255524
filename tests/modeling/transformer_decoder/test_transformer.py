from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from ddep.modeling.position_encoding import sine_position_encoding
from ddep.modeling.transformer_decoder.transformer import Transformer, TransformerEncoderOnly
from tests.huggingface_map import below, randomise
from tests.modeling.transformer_decoder.detr_formula import (
    decoder_layer,
    encoder_layer,
    layer_norm,
)

SIZES = {"d_model": 16, "nhead": 4, "dim_feedforward": 24, "dropout": 0.0}


def wide(module: nn.Module, prefix: str) -> dict[str, Tensor]:
    state = below(module.state_dict(), prefix)
    return {name: value.double() for name, value in state.items()}


def encode(module: nn.Module, src: Tensor, pos: Tensor, layers: int, pre_norm: bool) -> Tensor:
    for i in range(layers):
        src = encoder_layer(wide(module, f"encoder.layers.{i}."), src, pos, 4, pre_norm)
    return layer_norm(wide(module, "encoder."), "norm", src) if pre_norm else src


def inputs(batch: int = 2) -> tuple[Tensor, Tensor, Tensor]:
    """A feature map, flattened in float64, and its positions."""
    feature = torch.randn(batch, 16, 3, 5)
    pos = sine_position_encoding(3, 5, 16, "cpu").double().reshape(1, 16, 15).transpose(1, 2)
    return feature, feature.double().reshape(batch, 16, 15).transpose(1, 2), pos


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("layers", [0, 2])
@torch.no_grad()
def test_encoder_against_the_formula(layers: int, pre_norm: bool) -> None:
    module = TransformerEncoderOnly(
        num_encoder_layers=layers, normalize_before=pre_norm, **SIZES
    ).eval()
    randomise(module)
    feature, flat, pos = inputs()
    expected = encode(module, flat, pos, layers, pre_norm).transpose(1, 2).reshape(2, 16, 3, 5)
    torch.testing.assert_close(module(feature).double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize("enc_layers", [0, 1])
@torch.no_grad()
def test_transformer_against_the_formula(enc_layers: int, pre_norm: bool) -> None:
    module = Transformer(
        num_encoder_layers=enc_layers, num_decoder_layers=3, normalize_before=pre_norm, **SIZES
    ).eval()
    randomise(module)
    feature, flat, pos = inputs()
    query_embed = torch.randn(7, 16)
    memory = encode(module, flat, pos, enc_layers, pre_norm)
    queries = torch.zeros(2, 7, 16, dtype=torch.float64)
    outputs, encoded = module(feature, query_embed)
    expected = memory.transpose(1, 2).reshape(2, 16, 3, 5)
    torch.testing.assert_close(encoded.double(), expected, atol=1e-5, rtol=0)
    assert len(outputs) == 3
    for i, output in enumerate(outputs):
        state = wide(module, f"decoder.layers.{i}.")
        queries = decoder_layer(state, queries, memory, pos, query_embed.double(), 4, pre_norm)
        # The final norm is applied to every layer's output, but not between layers.
        expected = layer_norm(wide(module, "decoder."), "norm", queries)
        torch.testing.assert_close(output.double(), expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("pre_norm", [False, True])
@torch.no_grad()
def test_padding_changes_nothing(pre_norm: bool) -> None:
    """Images of 3x5 and 4x2 cells in one batch, and each alone."""
    module = Transformer(
        num_encoder_layers=2, num_decoder_layers=2, normalize_before=pre_norm, **SIZES
    ).eval()
    randomise(module)
    module = module.double()
    query_embed = torch.randn(7, 16).double()
    feature = 100 * torch.randn(2, 16, 4, 5).double()
    valid = torch.zeros(2, 4, 5, dtype=torch.bool)
    valid[0, :3, :5], valid[1, :4, :2] = True, True
    outputs, encoded = module(feature, query_embed, valid=valid)
    for image, (height, width) in enumerate([(3, 5), (4, 2)]):
        alone = feature[image, None, :, :height, :width]
        expected, expected_encoded = module(alone, query_embed)
        for output, other in zip(outputs, expected, strict=True):
            torch.testing.assert_close(output[image], other[0], atol=1e-6, rtol=0)
        torch.testing.assert_close(
            encoded[image, :, :height, :width], expected_encoded[0], atol=1e-6, rtol=0
        )


@torch.no_grad()
def test_positions_are_added_to_queries_and_keys_only() -> None:
    module = Transformer(
        num_encoder_layers=1, num_decoder_layers=1, normalize_before=False, **SIZES
    ).eval()
    randomise(module)
    feature, flat, _ = inputs()
    pos = torch.randn(1, 16, 3, 5)
    query_embed = torch.randn(7, 16)
    flat_pos = pos.double().flatten(2).mT
    memory = encode(module, flat, flat_pos, 1, False)
    state = wide(module, "decoder.layers.0.")
    queries = torch.zeros(2, 7, 16, dtype=torch.float64)
    queries = decoder_layer(state, queries, memory, flat_pos, query_embed.double(), 4, False)
    [output], _ = module(feature, query_embed, pos=pos)
    expected = layer_norm(wide(module, "decoder."), "norm", queries)
    torch.testing.assert_close(output.double(), expected, atol=1e-5, rtol=0)


def test_initialisation_and_dropout() -> None:
    module = Transformer(
        **{**SIZES, "dropout": 0.5},
        num_encoder_layers=1,
        num_decoder_layers=1,
        normalize_before=False,
    )
    for name, parameter in module.named_parameters():
        if parameter.dim() > 1:
            bound = (6 / sum(parameter.shape)) ** 0.5
            assert 0.8 * bound < parameter.abs().max() <= bound, name
    feature, _, _ = inputs()
    one, other = (module.train()(feature, torch.ones(4, 16))[0][0] for _ in range(2))
    assert not torch.allclose(one, other)
    one, other = (module.eval()(feature, torch.ones(4, 16))[0][0] for _ in range(2))
    assert torch.equal(one, other)
