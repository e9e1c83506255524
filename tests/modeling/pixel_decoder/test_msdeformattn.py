from __future__ import annotations

import pytest
import torch
from transformers.models.mask2former.modeling_mask2former import Mask2FormerPixelDecoder

from ddep.errors import UserError
from ddep.modeling.pixel_decoder import MSDeformAttnPixelDecoder
from tests.huggingface_map import pixel_decoder_state, randomise, small_config
from tests.modeling.mask_former_config import SMALL, feature_shapes, mask_former_config

HEAD = "MODEL.SEM_SEG_HEAD."


def build(**changes) -> MSDeformAttnPixelDecoder:
    settings = {**SMALL, **{HEAD + key: value for key, value in changes.items()}}
    return MSDeformAttnPixelDecoder(mask_former_config(settings), feature_shapes(16)).eval()


def image_sizes(height: int, width: int) -> list[tuple[int, int]]:
    return [(height // stride, width // stride) for stride in (4, 8, 16, 32)]


def random_features(sizes: list[tuple[int, int]], batch: int = 2) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(2)
    return {
        name: torch.randn(batch, shape.channels, *size, generator=generator)
        for (name, shape), size in zip(feature_shapes(16).items(), sizes, strict=True)
    }


@pytest.mark.parametrize(
    "sizes",
    [
        image_sizes(224, 224),
        image_sizes(256, 320),
        image_sizes(320, 416),
        # an image that is no multiple of 32: no size is twice the next
        [(25, 31), (13, 16), (7, 8), (4, 4)],
    ],
)
@torch.no_grad()
def test_matches_hugging_face(sizes):
    channels = [shape.channels for shape in feature_shapes(16).values()]
    theirs = Mask2FormerPixelDecoder(small_config(), channels).eval()
    randomise(theirs)
    ours = build()
    ours.load_state_dict(pixel_decoder_state(theirs.state_dict()))
    features = random_features(sizes)
    expected = theirs(list(features.values()))
    mask_features, coarsest, scales = ours.forward_features(features)
    torch.testing.assert_close(mask_features, expected.mask_features, rtol=0, atol=1e-4)
    assert [tuple(scale.shape[-2:]) for scale in scales] == sizes[:0:-1]
    for scale, other in zip(scales, expected.multi_scale_features, strict=True):
        torch.testing.assert_close(scale, other, rtol=0, atol=1e-4)
    assert coarsest is scales[0]


@torch.no_grad()
def test_two_fpn_levels():
    """Only the coarse features are encoded; res3 enters like res2, and is the third scale."""
    decoder = build(DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES=["res5", "res4"])
    names = {name for name, _ in decoder.named_children()}
    assert {"adapter_1", "layer_1", "adapter_2", "layer_2"} < names
    assert decoder.adapter_1.in_channels == 16
    assert decoder.adapter_2.in_channels == 32
    features = random_features(image_sizes(64, 96))
    mask_features, _, scales = decoder.forward_features(features)
    assert mask_features.shape == (2, 48, 16, 24)
    assert [tuple(scale.shape) for scale in scales] == [
        (2, 64, 2, 3),
        (2, 64, 4, 6),
        (2, 64, 8, 12),
    ]
    # The third scale depends on res3, the encoded ones do not.
    features["res3"] = features["res3"] + 1
    _, _, changed = decoder.forward_features(features)
    assert torch.equal(changed[0], scales[0])
    assert torch.equal(changed[1], scales[1])
    assert not torch.allclose(changed[2], scales[2])


@torch.no_grad()
def test_autocast_is_off_inside():
    decoder = build()
    features = random_features(image_sizes(64, 64))
    expected, _, expected_scales = decoder.forward_features(features)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _, scales = decoder.forward_features(features)
    assert torch.equal(found, expected)
    assert all(map(torch.equal, scales, expected_scales))
    half = {name: feature.bfloat16() for name, feature in features.items()}
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _, _ = decoder.forward_features(half)
    assert found.dtype == torch.float32
    rounded = {name: feature.float() for name, feature in half.items()}
    torch.testing.assert_close(found, decoder.forward_features(rounded)[0], rtol=0, atol=0)


def test_initialisation():
    decoder = build()
    for projection, norm in decoder.input_proj:
        fan_in, fan_out = projection.in_channels, projection.out_channels
        assert projection.weight.abs().max() <= (6 / (fan_in + fan_out)) ** 0.5
        assert not projection.bias.any()
        assert norm.num_groups == 32
    assert 0.8 < decoder.transformer.level_embed.std() < 1.2
    layer = decoder.transformer.encoder.layers[0]
    assert layer.linear1.out_features == 1024
    assert not layer.self_attn.sampling_offsets.weight.any()
    assert layer.self_attn.sampling_offsets.bias.any()


def test_every_parameter_learns():
    decoder = build().train()
    randomise(decoder)
    mask_features, _, scales = decoder.forward_features(random_features(image_sizes(64, 64)))
    sum(output.square().sum() for output in [mask_features, *scales]).backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


def test_dropout_acts_only_in_training():
    settings = {**SMALL, "MODEL.MASK_FORMER.DROPOUT": 0.5}
    decoder = MSDeformAttnPixelDecoder(mask_former_config(settings), feature_shapes(16))
    features = random_features(image_sizes(32, 32))
    with torch.no_grad():
        one, other = (decoder.train().forward_features(features)[0] for _ in range(2))
        assert not torch.allclose(one, other)
        one, other = (decoder.eval().forward_features(features)[0] for _ in range(2))
        assert torch.equal(one, other)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"IN_FEATURES": ["p2", "res3"]}, r"IN_FEATURES is \['p2', 'res3'\]; .* res2, res3, res4"),
        (
            {"DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES": ["res6"]},
            r"ENCODER_IN_FEATURES is \['res6'\]; expected some of res2",
        ),
        ({"DEFORMABLE_TRANSFORMER_ENCODER_IN_FEATURES": []}, r"ENCODER_IN_FEATURES is \[\]"),
        ({"IN_FEATURES": ["res3", "res4", "res5"]}, "COMMON_STRIDE is 4, but .* stride 8"),
        ({"CONVS_DIM": 48}, "CONVS_DIM is 48; expected a multiple of 32"),
    ],
)
def test_wrong_settings(changes, message):
    with pytest.raises(UserError, match=message):
        build(**changes)
