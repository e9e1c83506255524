from __future__ import annotations

from collections import Counter
from itertools import product

import pytest
import torch
from transformers import Mask2FormerForUniversalSegmentation

from ddep.errors import UserError
from ddep.modeling.mask_former_head import MaskFormerHead
from tests.huggingface_map import head_state, randomise, small_config
from tests.modeling.mask_former_config import (
    COCO_R50,
    FEATURES,
    MASKFORMER_SMALL,
    SMALL,
    feature_shapes,
    mask_former_config,
)


def build(settings=SMALL, width: int = 16) -> MaskFormerHead:
    return MaskFormerHead(mask_former_config(settings), feature_shapes(width)).eval()


@pytest.mark.parametrize("size", [(224, 224), (256, 320)])
@torch.no_grad()
def test_matches_hugging_face(size):
    """Everything in Hugging Face's model after the backbone, on its backbone's features."""
    theirs = Mask2FormerForUniversalSegmentation(small_config()).eval()
    randomise(theirs)
    ours = build()
    ours.load_state_dict(head_state(theirs.state_dict()))
    pixels = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(4))
    expected = theirs(pixel_values=pixels, output_auxiliary_logits=True)
    features = theirs.model.pixel_level_module.encoder(pixels).feature_maps
    ours.predictor.train()  # so that it returns all layers
    outputs = ours(dict(zip(FEATURES, features, strict=True)))
    # Hugging Face's list also starts with the queries' own predictions.
    for one, other in zip(
        [*outputs["aux_outputs"], outputs],
        [
            *expected.auxiliary_logits,
            {
                "class_queries_logits": expected.class_queries_logits,
                "masks_queries_logits": expected.masks_queries_logits,
            },
        ],
        strict=True,
    ):
        torch.testing.assert_close(
            one["pred_logits"], other["class_queries_logits"], rtol=0, atol=1e-4
        )
        torch.testing.assert_close(
            one["pred_masks"], other["masks_queries_logits"], rtol=0, atol=1e-4
        )


def linear(name: str, outputs: int, *inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, *inputs), f"{name}.bias": (outputs,)}


def norm(name: str) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (256,), f"{name}.bias": (256,)}


def mask2former_parameters() -> dict[str, tuple[int, ...]]:
    """Names and shapes below ``sem_seg_head`` in Mask2Former's R50 for COCO panoptic."""
    shapes = {"pixel_decoder.transformer.level_embed": (3, 256)}
    for i, channels in enumerate([2048, 1024, 512]):
        shapes |= linear(f"pixel_decoder.input_proj.{i}.0", 256, channels, 1, 1)
        shapes |= norm(f"pixel_decoder.input_proj.{i}.1")
    for i in range(6):
        layer = f"pixel_decoder.transformer.encoder.layers.{i}."
        shapes |= linear(f"{layer}self_attn.sampling_offsets", 8 * 3 * 4 * 2, 256)
        shapes |= linear(f"{layer}self_attn.attention_weights", 8 * 3 * 4, 256)
        shapes |= linear(f"{layer}self_attn.value_proj", 256, 256)
        shapes |= linear(f"{layer}self_attn.output_proj", 256, 256)
        shapes |= linear(f"{layer}linear1", 1024, 256)
        shapes |= linear(f"{layer}linear2", 256, 1024)
        shapes |= norm(f"{layer}norm1") | norm(f"{layer}norm2")
    shapes["pixel_decoder.adapter_1.weight"] = (256, 256, 1, 1)
    shapes["pixel_decoder.layer_1.weight"] = (256, 256, 3, 3)
    shapes |= norm("pixel_decoder.adapter_1.norm") | norm("pixel_decoder.layer_1.norm")
    shapes |= linear("pixel_decoder.mask_features", 256, 256, 1, 1)

    for i, (kind, attention) in product(
        range(9), [("self", "self_attn"), ("cross", "multihead_attn")]
    ):
        layer = f"predictor.transformer_{kind}_attention_layers.{i}."
        shapes[f"{layer}{attention}.in_proj_weight"] = (768, 256)
        shapes[f"{layer}{attention}.in_proj_bias"] = (768,)
        shapes |= linear(f"{layer}{attention}.out_proj", 256, 256)
        shapes |= norm(f"{layer}norm")
    for i in range(9):
        layer = f"predictor.transformer_ffn_layers.{i}."
        shapes |= linear(f"{layer}linear1", 2048, 256) | linear(f"{layer}linear2", 256, 2048)
        shapes |= norm(f"{layer}norm")
    shapes |= norm("predictor.decoder_norm")
    shapes |= {
        "predictor.query_feat.weight": (100, 256),
        "predictor.query_embed.weight": (100, 256),
    }
    shapes["predictor.level_embed.weight"] = (3, 256)
    shapes |= linear("predictor.class_embed", 134, 256)
    for i in range(3):
        shapes |= linear(f"predictor.mask_embed.layers.{i}", 256, 256)
    return shapes


def test_names_and_shapes_are_mask2formers():
    with torch.device("meta"):
        head = MaskFormerHead(mask_former_config(COCO_R50), feature_shapes(256))
    found = {key: tuple(value.shape) for key, value in head.state_dict().items()}
    assert found == mask2former_parameters()
    assert head.num_classes == 133


def version_1(state: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Names of MaskFormer's first checkpoints: no ``pixel_decoder``, and ``static_query``."""
    return {
        key.replace("pixel_decoder.", "").replace("query_feat", "static_query"): value
        for key, value in state.items()
    }


MASKFORMER = {
    **MASKFORMER_SMALL,
    "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": "TransformerEncoderPixelDecoder",
    "MODEL.SEM_SEG_HEAD.TRANSFORMER_ENC_LAYERS": 2,
    "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": "transformer_encoder",
}


@pytest.mark.parametrize("settings", [SMALL, MASKFORMER], ids=["Mask2Former", "MaskFormer"])
@pytest.mark.parametrize("old", [True, False])
def test_loads_checkpoints_without_a_version(settings, old):
    """Plain dicts, as other tools write them, with old and with new names, below a prefix."""
    head = build(settings)
    randomise(head)
    model = torch.nn.ModuleDict({"sem_seg_head": build(settings)})
    state = version_1(head.state_dict()) if old else dict(head.state_dict())
    model.load_state_dict({f"sem_seg_head.{key}": value for key, value in state.items()})
    for key, value in model["sem_seg_head"].state_dict().items():
        assert torch.equal(value, head.state_dict()[key]), key


def test_loads_a_pixel_decoder_without_a_head():
    """The denoiser has only the pixel decoder, so its checkpoints have no version of the head."""
    head = build()
    randomise(head)
    denoiser = torch.nn.ModuleDict({"pixel_decoder": head.pixel_decoder})
    other = build()
    result = other.load_state_dict(denoiser.state_dict(), strict=False)
    assert not result.unexpected_keys
    assert Counter(key.partition(".")[0] for key in result.missing_keys).keys() == {"predictor"}
    for key, value in other.pixel_decoder.state_dict().items():
        assert torch.equal(value, head.pixel_decoder.state_dict()[key]), key


def test_version_2_is_not_renamed():
    head = build()
    state = head.state_dict()
    state["mask_features.weight"] = state["pixel_decoder.mask_features.weight"]
    result = head.load_state_dict(state, strict=False)
    assert result.unexpected_keys == ["mask_features.weight"]


def with_in_feature(name: str, pixel_decoder: str) -> dict:
    return {
        **SMALL,
        "MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE": name,
        "MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME": pixel_decoder,
    }


PIXEL_DECODERS = [
    "BasePixelDecoder",
    "TransformerEncoderPixelDecoder",
    "MSDeformAttnPixelDecoder",
]


@pytest.mark.parametrize("pixel_decoder", PIXEL_DECODERS)
@pytest.mark.parametrize(
    ("name", "channels"),
    [("res4", 64), ("res5", 128), ("transformer_encoder", 64), ("pixel_embedding", 48)],
)
@torch.no_grad()
def test_one_in_feature(name, channels, pixel_decoder):
    """The transformer decoder gets the feature that the config names, and no other."""
    if name == "transformer_encoder" and pixel_decoder == "BasePixelDecoder":
        pytest.skip("encodes nothing")
    head = build(with_in_feature(name, pixel_decoder))
    seen = {}
    head.predictor.register_forward_hook(lambda _, inputs, __: seen.update(inputs=inputs))
    features = {
        key: torch.randn(1, shape.channels, 64 // shape.stride, 96 // shape.stride)
        for key, shape in feature_shapes(16).items()
    }
    outputs = head(features)
    assert outputs["pred_masks"].shape == (1, 10, 16, 24)
    feature, mask_features = seen["inputs"]
    expected_masks, encoded, _ = head.pixel_decoder.forward_features(features)
    choices = {**features, "transformer_encoder": encoded, "pixel_embedding": expected_masks}
    assert torch.equal(feature, choices[name])
    assert torch.equal(mask_features, expected_masks)
    assert feature.shape[1] == channels


@pytest.mark.parametrize("pixel_decoder", PIXEL_DECODERS)
@torch.no_grad()
def test_masked_decoder_with_every_pixel_decoder(pixel_decoder):
    head = build(with_in_feature("multi_scale_pixel_decoder", pixel_decoder))
    features = {
        key: torch.randn(1, shape.channels, 64 // shape.stride, 96 // shape.stride)
        for key, shape in feature_shapes(16).items()
    }
    outputs = head(features)
    assert outputs["pred_masks"].shape == (1, 10, 16, 24)
    mask_features, _, scales = head.pixel_decoder.forward_features(features)
    assert [scale.shape[-2:] for scale in scales] == [(2, 3), (4, 6), (8, 12)]
    expected = head.predictor(scales, mask_features)
    assert torch.equal(outputs["pred_masks"], expected["pred_masks"])
    assert torch.equal(outputs["pred_logits"], expected["pred_logits"])


@pytest.mark.parametrize(
    ("name", "pixel_decoder", "message"),
    [
        ("res6", "BasePixelDecoder", "IN_FEATURE is 'res6'; with BasePixelDecoder expected .*res5"),
        ("transformer_encoder", "BasePixelDecoder", "'transformer_encoder'; with BasePixelDecoder"),
        ("p5", "MSDeformAttnPixelDecoder", "is 'p5'; .*transformer_encoder"),
    ],
)
def test_unknown_in_features(name, pixel_decoder, message):
    with pytest.raises(UserError, match=message):
        build(with_in_feature(name, pixel_decoder))
