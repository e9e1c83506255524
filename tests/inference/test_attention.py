"""Attention is recorded as the modules compute it, and nothing changes by recording it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.modeling import build_model
from torch import Tensor, nn

from ddep.errors import UserError
from ddep.inference.attention import record_attention
from ddep.modeling.transformer_decoder.attention import MultiheadAttention
from ddep.ops import MSDeformAttn
from tests.huggingface_map import randomise
from tests.modeling.meta_arch.small_mask_former import (
    PANOPTIC,
    image_of_size,
    small_model,
    tiny_config,
)

# Padded to 64 x 96.
INPUTS = [
    {"image": image_of_size(60, 90, seed=0), "height": 60, "width": 90},
    {"image": image_of_size(50, 80, seed=1), "height": 100, "width": 160},
]
MASKED = {}
STANDARD = {
    "TRANSFORMER_IN_FEATURE": "res5",
    "TRANSFORMER_DECODER_NAME": "StandardTransformerDecoder",
}


def build(pixel_decoder: str = "MSDeformAttnPixelDecoder", **mask_former: Any) -> nn.Module:
    cfg = tiny_config(**PANOPTIC)
    cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME = pixel_decoder
    cfg.MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS = 2
    for key, value in {"DEC_LAYERS": 5, **mask_former}.items():
        cfg.MODEL.MASK_FORMER[key] = value
    model = build_model(cfg).eval()
    # At first, all samples have the same weight. Random numbers for the whole model would give
    # masks that cover the whole image.
    for module in model.modules():
        if isinstance(module, (MSDeformAttn, MultiheadAttention)):
            randomise(module)
    return model


def number_of_hooks(model: nn.Module) -> int:
    return sum(
        len(module._forward_hooks) + len(module._forward_pre_hooks) for module in model.modules()
    )


@torch.no_grad()
@pytest.mark.parametrize("pixel_decoder", ["MSDeformAttnPixelDecoder", "BasePixelDecoder"])
@pytest.mark.parametrize("decoder", [MASKED, STANDARD])
def test_outputs_are_the_same_to_the_bit_and_no_hook_remains(
    pixel_decoder: str, decoder: dict[str, str]
) -> None:
    model = build(pixel_decoder, **decoder)
    hooks = number_of_hooks(model)
    expected = model.predict_logits(INPUTS)
    with record_attention(model) as record:
        found = model.predict_logits(INPUTS)
        assert number_of_hooks(model) > hooks
    assert number_of_hooks(model) == hooks
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one.mask_cls, other.mask_cls)
        assert torch.equal(one.mask_pred, other.mask_pred)
    with pytest.raises(KeyError), record_attention(model):
        raise KeyError
    assert number_of_hooks(model) == hooks
    assert record.padded_size == (64, 96)
    assert bool(record.level_sizes()) == (pixel_decoder == "MSDeformAttnPixelDecoder")


@torch.no_grad()
@pytest.mark.parametrize("decoder", [MASKED, STANDARD])
def test_cross_attention_is_that_of_each_layer(decoder: dict[str, str]) -> None:
    """The whole output of each layer, from what is recorded of the queries of the second image."""
    model = build(**decoder)
    predictor = model.sem_seg_head.predictor
    if decoder:
        modules = [layer.multihead_attn for layer in predictor.transformer.decoder.layers]
        sizes = [(2, 3)] * 5
    else:
        layers = predictor.transformer_cross_attention_layers
        modules = [layer.multihead_attn for layer in layers]
        sizes = [(2, 3), (4, 6), (8, 12), (2, 3)]
    calls: list[tuple[Any, ...]] = []
    for module in modules:
        module.register_forward_hook(lambda _, inputs, output: calls.append((*inputs, output)))
    with record_attention(model) as record:
        model(INPUTS[:1])  # only the latest call counts
        calls.clear()
        model(INPUTS)
    recorded = record.cross_attention(torch.tensor([4, 1]), image=1)
    assert [tuple(layer.weights.shape) for layer in recorded] == [(2, *size) for size in sizes]
    for module, call, layer in zip(modules, calls, recorded, strict=True):
        query, key, *rest = call
        expected = mean_weights(module, query[1, [4, 1]], key[1])
        _, allowed, _ = rest
        if allowed is not None:
            assert torch.equal(layer.allowed.flatten(1), allowed[1, [4, 1]])
            expected = mean_weights(module, query[1, [4, 1]], key[1], allowed[1, [4, 1]])
        else:
            assert layer.allowed.all()
        torch.testing.assert_close(layer.weights.flatten(1).double(), expected)
    assert bool(decoder) != any((~layer.allowed).any() for layer in recorded)


def mean_weights(
    module: MultiheadAttention, query: Tensor, key: Tensor, allowed: Tensor | None = None
) -> Tensor:
    """(N, C), (S, C) -> (N, S) in float64, a head at a time."""
    channels = query.shape[-1]
    size = channels // module.num_heads
    weight, bias = module.in_proj_weight.double(), module.in_proj_bias.double()
    total = 0
    for head in range(module.num_heads):
        rows = slice(head * size, (head + 1) * size)
        q = query.double() @ weight[:channels][rows].T + bias[:channels][rows]
        k = key.double() @ weight[channels : 2 * channels][rows].T
        k = k + bias[channels : 2 * channels][rows]
        exponentials = (q @ k.T / size**0.5).exp()
        if allowed is not None:
            exponentials = exponentials * allowed
        total = total + exponentials / exponentials.sum(-1, keepdim=True)
    return total / module.num_heads


@torch.no_grad()
@pytest.mark.parametrize(
    ("level", "centre"),
    [
        (0, (80 / 96, 16 / 64)),  # cells of 32 pixels: column 2, row 0
        (1, (72 / 96, 24 / 64)),
        (2, (76 / 96, 20 / 64)),
        (-1, (76 / 96, 20 / 64)),
    ],
)
def test_the_pixel_that_samples_is_the_one_that_covers_the_place(
    level: int, centre: tuple[float, float]
) -> None:
    """Without offsets, all samples are at the centre of the cell over (77, 23) of 96 x 64."""
    model = build()
    for module in model.modules():
        if isinstance(module, MSDeformAttn):
            nn.init.zeros_(module.sampling_offsets.weight)
            nn.init.zeros_(module.sampling_offsets.bias)
    with record_attention(model) as record:
        model(INPUTS)
    layers = record.sampling_points((77 / 96, 23 / 64), image=1, level=level)
    assert len(layers) == 2
    for layer in layers:
        assert layer.locations.shape == (4, 3, 4, 2)
        expected = torch.tensor(centre).expand_as(layer.locations)
        torch.testing.assert_close(layer.locations, expected)
        torch.testing.assert_close(layer.weights.sum((1, 2)), torch.ones(4))
    assert record.level_sizes() == [(2, 3), (4, 6), (8, 12)]


@torch.no_grad()
def test_the_weights_of_a_pixel_are_of_its_own_query() -> None:
    model = build()
    modules = [module for module in model.modules() if isinstance(module, MSDeformAttn)]
    queries: list[Tensor] = []
    modules[1].register_forward_pre_hook(lambda _, inputs: queries.append(inputs[0]))
    with record_attention(model) as record:
        model(INPUTS)
    layer = record.sampling_points((77 / 96, 23 / 64), image=1)[1]
    # Row 2, column 9 of the finest level, 8 x 12, which two levels of 2 x 3 and 4 x 6 precede.
    query = queries[0][1, 6 + 24 + 2 * 12 + 9]
    logits = modules[1].attention_weights(query).double().view(4, 12)
    expected = logits.exp() / logits.exp().sum(-1, keepdim=True)
    torch.testing.assert_close(layer.weights.flatten(1).double(), expected)


def test_a_model_without_attention_is_refused() -> None:
    message = "MaskFormer has no queries that attend to the image and no encoder whose pixels"
    with pytest.raises(UserError, match=message), record_attention(small_model()):
        pass
