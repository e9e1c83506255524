from __future__ import annotations

import pytest
import torch
from detectron2.layers import ShapeSpec
from transformers.models.maskformer.modeling_maskformer import MaskFormerPixelDecoder

from ddep.errors import UserError
from ddep.modeling.pixel_decoder import BasePixelDecoder, TransformerEncoderPixelDecoder
from tests.huggingface_map import below, randomise
from tests.huggingface_maskformer_map import pixel_decoder_state
from tests.modeling.mask_former_config import (
    MASKFORMER_ADE20K_R50,
    MASKFORMER_SMALL,
    feature_shapes,
    mask_former_config,
)
from tests.modeling.pixel_decoder.test_msdeformattn import image_sizes, random_features
from tests.modeling.transformer_decoder.test_transformer import encode, sine_position_encoding

HEAD = "MODEL.SEM_SEG_HEAD."
BOTH = [BasePixelDecoder, TransformerEncoderPixelDecoder]


def build(kind: type = BasePixelDecoder, /, *, settings=MASKFORMER_SMALL, width=16, **changes):
    settings = {**settings, **{HEAD + key: value for key, value in changes.items()}}
    return kind(mask_former_config(settings), feature_shapes(width)).eval()


@pytest.mark.parametrize(
    "sizes",
    [
        image_sizes(224, 224),
        image_sizes(256, 320),
        # 300 x 412 as it is: no size is twice the next
        [(75, 103), (38, 52), (19, 26), (10, 13)],
    ],
)
@torch.no_grad()
def test_matches_hugging_face(sizes):
    channels = [shape.channels for shape in feature_shapes(16).values()]
    theirs = MaskFormerPixelDecoder(
        in_features=channels[-1],
        lateral_widths=channels[:-1],
        feature_size=32,
        mask_feature_size=48,
    ).eval()
    randomise(theirs)
    ours = build()
    ours.load_state_dict(pixel_decoder_state(theirs.state_dict()))
    features = random_features(sizes)
    stems = []
    theirs.fpn.stem.register_forward_hook(lambda *args: stems.append(args[-1].clone()))
    expected = theirs(list(features.values()), output_hidden_states=True)
    mask_features, encoded, scales = ours.forward_features(features)
    torch.testing.assert_close(mask_features, expected.last_hidden_state, rtol=0, atol=1e-4)
    assert encoded is None
    assert [tuple(scale.shape[-2:]) for scale in scales] == sizes[:0:-1]
    for scale, other in zip(scales, [*stems, *expected.hidden_states[:2]], strict=True):
        torch.testing.assert_close(scale, other, rtol=0, atol=1e-4)


@pytest.mark.parametrize("pre_norm", [False, True])
@torch.no_grad()
def test_transformer_encoder_comes_before_the_pyramid(pre_norm):
    settings = {**MASKFORMER_SMALL, "MODEL.MASK_FORMER.PRE_NORM": pre_norm}
    decoder = build(TransformerEncoderPixelDecoder, settings=settings, TRANSFORMER_ENC_LAYERS=2)
    randomise(decoder)
    features = random_features(image_sizes(96, 128))
    mask_features, encoded, scales = decoder.forward_features(features)

    projection, res5 = decoder.input_proj, features["res5"].double().flatten(2)
    weight, bias = projection.weight.double().flatten(1), projection.bias.double()
    projected = (weight @ res5 + bias[:, None]).transpose(1, 2)
    pos = sine_position_encoding(3, 4, 32, "cpu").double().flatten(2).transpose(1, 2)
    expected = encode(decoder.transformer, projected, pos, 2, pre_norm)
    expected = expected.transpose(1, 2).unflatten(2, (3, 4))
    torch.testing.assert_close(encoded.double(), expected, rtol=0, atol=1e-5)

    # After it comes the FPN, whose coarsest level now has the same channels as the others.
    shapes = {**feature_shapes(16), "res5": ShapeSpec(channels=32, stride=32)}
    fpn = BasePixelDecoder(shapes, conv_dim=32, mask_dim=48, norm="GN").eval()
    state = decoder.state_dict()
    fpn.load_state_dict({k: v for k, v in state.items() if not k.startswith(("inp", "transf"))})
    other_mask_features, _, other_scales = fpn.forward_features({**features, "res5": encoded})
    assert torch.equal(mask_features, other_mask_features)
    assert all(map(torch.equal, scales, other_scales))


def test_names_and_shapes_are_maskformers():
    """Those of the pixel decoder of MaskFormer's ResNet-50 for COCO panoptic."""
    with torch.device("meta"):
        decoder = build(
            TransformerEncoderPixelDecoder,
            settings=MASKFORMER_ADE20K_R50,
            width=256,
            TRANSFORMER_ENC_LAYERS=6,
        )

    def pair(name: str, outputs: int, *inputs: int) -> dict[str, tuple[int, ...]]:
        return {f"{name}.weight": (outputs, *inputs), f"{name}.bias": (outputs,)}

    expected = pair("input_proj", 256, 2048, 1, 1) | pair("mask_features", 256, 256, 3, 3)
    for i in range(6):
        layer = f"transformer.encoder.layers.{i}."
        expected[f"{layer}self_attn.in_proj_weight"] = (768, 256)
        expected[f"{layer}self_attn.in_proj_bias"] = (768,)
        expected |= pair(f"{layer}self_attn.out_proj", 256, 256)
        expected |= pair(f"{layer}linear1", 2048, 256) | pair(f"{layer}linear2", 256, 2048)
        expected |= pair(f"{layer}norm1", 256) | pair(f"{layer}norm2", 256)
    for i, channels in enumerate([256, 512, 1024], start=1):
        expected[f"adapter_{i}.weight"] = (256, channels, 1, 1)
        expected |= pair(f"adapter_{i}.norm", 256)
    for i in range(1, 5):
        expected[f"layer_{i}.weight"] = (256, 256, 3, 3)
        expected |= pair(f"layer_{i}.norm", 256)
    assert {key: tuple(value.shape) for key, value in decoder.state_dict().items()} == expected

    with torch.device("meta"):
        base = build(settings=MASKFORMER_ADE20K_R50, width=256)
    expected = {k: v for k, v in expected.items() if not k.startswith(("input_proj", "transf"))}
    expected["layer_4.weight"] = (256, 2048, 3, 3)
    assert {key: tuple(value.shape) for key, value in base.state_dict().items()} == expected


@pytest.mark.parametrize("kind", BOTH)
def test_without_normalisation_convolutions_have_a_bias(kind):
    decoder = build(kind, NORM="")
    for name in ("adapter_1", "adapter_3", "layer_1", "layer_4"):
        assert set(below(decoder.state_dict(), f"{name}.")) == {"weight", "bias"}


@pytest.mark.parametrize("kind", BOTH)
@torch.no_grad()
def test_two_levels_make_two_scales(kind):
    decoder = build(kind, IN_FEATURES=["res5", "res2"])
    mask_features, _, scales = decoder.forward_features(random_features(image_sizes(64, 96)))
    assert mask_features.shape == (2, 48, 16, 24)
    assert [tuple(scale.shape) for scale in scales] == [(2, 32, 2, 3), (2, 32, 16, 24)]
    assert {"layer_1", "layer_2", "adapter_1"} < {name for name, _ in decoder.named_children()}


@pytest.mark.parametrize("kind", BOTH)
def test_every_parameter_learns_from_the_mask_features(kind):
    decoder = build(kind, TRANSFORMER_ENC_LAYERS=1).train()
    randomise(decoder)
    decoder.forward_features(random_features(image_sizes(64, 64)))[0].square().sum().backward()
    for name, parameter in decoder.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.any(), name


@pytest.mark.parametrize("kind", BOTH)
def test_autocast(kind):
    decoder = build(kind, TRANSFORMER_ENC_LAYERS=1)
    features = random_features(image_sizes(64, 64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found, _, _ = decoder.forward_features(features)
    assert found.dtype == torch.bfloat16
    exact = decoder.forward_features(features)[0]
    torch.testing.assert_close(found.float(), exact, rtol=0.05, atol=0.05 * exact.std().item())


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"IN_FEATURES": ["p2", "res3"]}, r"IN_FEATURES is \['p2', 'res3'\]; .* res2, res3, res4"),
        ({"IN_FEATURES": []}, r"IN_FEATURES is \[\]"),
        ({"IN_FEATURES": ["res3", "res5"]}, "COMMON_STRIDE is 4, but .* stride 8, .*set it to 8"),
        ({"CONVS_DIM": 48}, "CONVS_DIM is 48; expected a multiple of 32"),
    ],
)
def test_wrong_settings(kind, changes, message):
    with pytest.raises(UserError, match=message):
        build(kind, **changes)


def test_channels_that_heads_cannot_share():
    settings = {**MASKFORMER_SMALL, "MODEL.MASK_FORMER.NHEADS": 6}
    with pytest.raises(UserError, match="CONVS_DIM is 32; .*NHEADS 6"):
        build(TransformerEncoderPixelDecoder, settings=settings)
