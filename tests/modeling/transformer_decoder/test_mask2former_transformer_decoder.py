from __future__ import annotations

import pytest
import torch
from transformers.models.mask2former.modeling_mask2former import Mask2FormerTransformerModule

from ddep.errors import UserError
from ddep.modeling.transformer_decoder import MultiScaleMaskedTransformerDecoder
from ddep.modeling.transformer_decoder.mask2former_transformer_decoder import (
    attention_mask,
    resized_features,
)
from tests.huggingface_map import predictor_state, randomise, small_config
from tests.modeling.mask_former_config import SMALL, mask_former_config

MASK_FORMER = "MODEL.MASK_FORMER."


def build(in_channels: int = 64, **changes) -> MultiScaleMaskedTransformerDecoder:
    settings = {**SMALL, **{MASK_FORMER + key: value for key, value in changes.items()}}
    decoder = MultiScaleMaskedTransformerDecoder(
        mask_former_config(settings), in_channels, mask_classification=True
    )
    randomise(decoder)
    return decoder.eval()


def random_inputs(
    channels: int = 64, coarsest: tuple[int, int] = (3, 4), batch: int = 2
) -> tuple[list[torch.Tensor], torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    height, width = coarsest
    scales = [
        torch.randn(batch, channels, height * 2**i, width * 2**i, generator=generator)
        for i in range(3)
    ]
    return scales, torch.randn(batch, 48, height * 8, width * 8, generator=generator)


@pytest.mark.parametrize("coarsest", [(7, 7), (5, 8)])
@pytest.mark.parametrize("pre_norm", [False, True])
@pytest.mark.parametrize(("channels", "enforce_projection"), [(64, False), (64, True), (32, False)])
@torch.no_grad()
def test_matches_hugging_face(coarsest, pre_norm, channels, enforce_projection):
    config = small_config(pre_norm=pre_norm, enforce_input_projection=enforce_projection)
    theirs = Mask2FormerTransformerModule(channels, config).eval()
    class_predictor = torch.nn.Linear(64, 6)
    randomise(theirs)
    randomise(class_predictor, seed=1)
    ours = build(channels, PRE_NORM=pre_norm, ENFORCE_INPUT_PROJ=enforce_projection).train()
    ours.load_state_dict(predictor_state(theirs.state_dict(), class_predictor.state_dict()))

    scales, mask_features = random_inputs(channels, coarsest)
    expected = theirs(scales, mask_features)
    outputs = ours(scales, mask_features)
    assert outputs["pred_logits"].shape == (2, 10, 6)
    assert outputs["pred_masks"].shape == (2, 10, *mask_features.shape[-2:])
    layers = [*outputs["aux_outputs"], outputs]
    assert len(layers) == 8
    for layer, hidden, masks in zip(
        layers, expected.intermediate_hidden_states, expected.masks_queries_logits, strict=True
    ):
        classes = class_predictor(hidden.transpose(0, 1))
        torch.testing.assert_close(layer["pred_logits"], classes, rtol=0, atol=1e-4)
        torch.testing.assert_close(layer["pred_masks"], masks, rtol=0, atol=1e-4)
    # The masks matter here: they forbid some pixels and allow others.
    resized = torch.nn.functional.interpolate(outputs["pred_masks"], coarsest, mode="bilinear")
    assert 0.2 < (resized < 0).float().mean() < 0.8


def test_attention_mask():
    """At half the size, each pixel is the mean of four; at a quarter, of the middle four."""
    generator = torch.Generator().manual_seed(0)
    embeddings = torch.randn(2, 3, 5, generator=generator, requires_grad=True)
    features = torch.randn(2, 5, 8, 12, generator=generator, requires_grad=True)
    logits = torch.einsum("bqc,bchw->bqhw", embeddings, features)
    half = logits.unflatten(3, (6, 2)).unflatten(2, (4, 2)).mean((3, 5)).flatten(2)
    assert half.abs().min() > 1e-4  # more than rounding
    found = attention_mask(embeddings, resized_features(features, (4, 6)))
    assert torch.equal(found, half >= 0)
    quarter = logits.unflatten(3, (3, 4)).unflatten(2, (2, 4))[..., 1:3, :, 1:3]
    quarter = quarter.mean((3, 5)).flatten(2)
    assert quarter.abs().min() > 1e-4
    assert torch.equal(attention_mask(embeddings, resized_features(features, (2, 3))), quarter >= 0)


def test_attention_mask_of_empty_masks():
    logits = torch.tensor([[[-1.0, -2.0], [-1.0, 3.0], [0.0, -1.0]]])
    expected = torch.tensor([[[True, True], [False, True], [True, False]]])
    assert torch.equal(attention_mask(logits, torch.eye(2)[None]), expected)


@torch.no_grad()
def test_a_query_sees_only_its_mask():
    decoder = build(NUM_OBJECT_QUERIES=1, DEC_LAYERS=2)
    last = decoder.mask_embed.layers[-1]
    torch.nn.init.zeros_(last.weight)
    torch.nn.init.ones_(last.bias)
    scales, mask_features = random_inputs()
    mask_features[0] = -1.0
    mask_features[0, :, :, :16] = 1.0  # the left half of image 0
    mask_features[1] = -1.0  # nothing of image 1, whose queries therefore attend everywhere
    before = decoder(scales, mask_features)["pred_logits"]

    scales[0][:, :, :, 3] += 1.0  # right
    after = decoder(scales, mask_features)["pred_logits"]
    assert torch.equal(after[0], before[0])
    assert not torch.allclose(after[1], before[1])

    scales[0][:, :, :, 0] += 1.0  # left
    assert not torch.allclose(decoder(scales, mask_features)["pred_logits"][0], before[0])


@torch.no_grad()
def test_layers_take_turns_on_the_scales():
    """Layer i attends to scale i mod 3, so outputs before it do not depend on that scale."""
    decoder = build(DEC_LAYERS=5).train()
    scales, mask_features = random_inputs()
    before = decoder(scales, mask_features)
    for level in range(3):
        changed = [scale + 1.0 if i == level else scale for i, scale in enumerate(scales)]
        after = decoder(changed, mask_features)
        for i, (one, other) in enumerate(
            zip(after["aux_outputs"], before["aux_outputs"], strict=True)
        ):
            same = torch.equal(one["pred_logits"], other["pred_logits"])
            assert same == (i <= level)


@torch.no_grad()
def test_evaluation_predicts_from_the_last_layer_only():
    decoder, inputs = build(), random_inputs()
    outputs, expected = decoder(*inputs), decoder.train()(*inputs)
    assert outputs["aux_outputs"] == []
    assert len(expected["aux_outputs"]) == 7
    for name in ("pred_logits", "pred_masks"):
        torch.testing.assert_close(outputs[name], expected[name])


@torch.no_grad()
def test_images_do_not_mix():
    decoder = build()
    scales, mask_features = random_inputs()
    together = decoder(scales, mask_features)
    alone = decoder([scale[1:] for scale in scales], mask_features[1:])
    torch.testing.assert_close(alone["pred_masks"], together["pred_masks"][1:], rtol=0, atol=1e-4)


def test_every_parameter_learns():
    decoder = build().train()
    outputs = decoder(*random_inputs())
    total = sum(
        tensor.square().mean()
        for layer in [outputs, *outputs["aux_outputs"]]
        for key, tensor in layer.items()
        if key != "aux_outputs"
    )
    total.backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_attention_masks_carry_no_gradient():
    decoder = build()
    decoder(*random_inputs())["pred_logits"].sum().backward()
    assert all(parameter.grad is None for parameter in decoder.mask_embed.parameters())
    assert decoder.query_embed.weight.grad.any()


def test_autocast():
    decoder = build().train()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        outputs = decoder(*random_inputs())
    assert outputs["pred_logits"].dtype == outputs["pred_masks"].dtype == torch.bfloat16
    (outputs["pred_logits"].sum() + outputs["pred_masks"].sum()).backward()
    assert all(p.grad.isfinite().all() for p in decoder.parameters() if p.grad is not None)
    exact = decoder(*random_inputs())["aux_outputs"][0]["pred_masks"]
    found = outputs["aux_outputs"][0]["pred_masks"].float()
    torch.testing.assert_close(found, exact, rtol=0.05, atol=0.05 * exact.std().item())


@torch.no_grad()
def test_queries_alone():
    outputs = build(DEC_LAYERS=1)(*random_inputs())
    assert outputs["aux_outputs"] == []
    assert torch.equal(outputs["pred_logits"][0], outputs["pred_logits"][1])


def test_initialisation():
    decoder = MultiScaleMaskedTransformerDecoder(mask_former_config(SMALL), 32)
    attention = decoder.transformer_cross_attention_layers[0].multihead_attn
    linear = decoder.transformer_ffn_layers[0].linear1
    for weight in (attention.in_proj_weight, attention.out_proj.weight, linear.weight):
        bound = (6 / sum(weight.shape)) ** 0.5
        assert 0.9 * bound < weight.abs().max() <= bound
    assert not attention.in_proj_bias.any()
    assert 0.8 < decoder.query_feat.weight.std() < 1.2
    assert not decoder.input_proj[0].bias.any()


@pytest.mark.parametrize("metadata", [None, {"": {"version": 1}}])
def test_loads_version_1(metadata):
    decoder, other = build(), build()
    with torch.no_grad():
        decoder.query_feat.weight.add_(1)
    state = decoder.state_dict()
    state["static_query.weight"] = state.pop("query_feat.weight")
    del state._metadata
    if metadata:
        state._metadata = metadata
    other.load_state_dict(state)
    assert torch.equal(other.query_feat.weight, decoder.query_feat.weight)


def test_version_2_is_not_renamed():
    decoder = build()
    state = decoder.state_dict()
    state["static_query.weight"] = state["query_feat.weight"]
    assert decoder.load_state_dict(state, strict=False).unexpected_keys == ["static_query.weight"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"DEC_LAYERS": 0}, "DEC_LAYERS is 0; expected at least 1"),
        ({"HIDDEN_DIM": 66}, "HIDDEN_DIM is 66; expected a multiple of 4"),
        ({"HIDDEN_DIM": 64, "NHEADS": 6}, "HIDDEN_DIM is 64; .*NHEADS 6"),
    ],
)
def test_wrong_settings(changes, message):
    with pytest.raises(UserError, match=message):
        build(**changes)


def test_masks_need_classes():
    with pytest.raises(ValueError, match="masks without classes"):
        MultiScaleMaskedTransformerDecoder(mask_former_config(SMALL), 64, mask_classification=False)
