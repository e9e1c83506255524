from __future__ import annotations

import pytest
import torch

from ddep.modeling.pixel_decoder.deformable_encoder import MSDeformAttnTransformerEncoderOnly
from tests.huggingface_map import randomise

SIZES = [(2, 3), (4, 5), (9, 6)]


def build() -> MSDeformAttnTransformerEncoderOnly:
    encoder = MSDeformAttnTransformerEncoderOnly(
        d_model=16,
        nhead=2,
        num_encoder_layers=1,
        dim_feedforward=32,
        dropout=0.0,
        num_feature_levels=3,
        enc_n_points=1,
    )
    randomise(encoder)
    return encoder


def random_features(device: str = "cpu") -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randn(2, 16, *size, generator=generator).to(device) for size in SIZES]


def test_pixels_attend_to_the_same_place_on_all_levels():
    """Without offsets, a pixel samples all levels bilinearly at its own centre.

    The gradient of one output pixel shows which inputs it depends on.
    """
    encoder = build()
    attention = encoder.encoder.layers[0].self_attn
    torch.nn.init.zeros_(attention.sampling_offsets.weight)
    torch.nn.init.zeros_(attention.sampling_offsets.bias)
    features = [feature.requires_grad_() for feature in random_features()]
    # Row 3, column 1 of 4 x 5: its centre is at the fractions y = 3.5 / 4, x = 1.5 / 5.
    encoder(features)[1][0, :, 3, 1].square().sum().backward()
    # float32 rounds the centre, which gives a neighbour a weight of 1e-7.
    seen = [(f.grad[0].abs().sum(0) > 1e-5).nonzero().tolist() for f in features]
    # 2 x 3: y = 1.25, of which row 2 does not exist; x = 0.4
    assert seen[0] == [[1, 0], [1, 1]]
    assert seen[1] == [[3, 1]]
    # 9 x 6: y = 7.375, x = 1.3
    assert seen[2] == [[7, 1], [7, 2], [8, 1], [8, 2]]
    assert not any(feature.grad[1].any() for feature in features)


def test_level_and_position_affect_only_queries():
    """Positions and levels are added to the queries, never to the values."""
    encoder = build()
    attention = encoder.encoder.layers[0].self_attn
    for projection in (attention.sampling_offsets, attention.attention_weights):
        torch.nn.init.zeros_(projection.weight)
    before = encoder(random_features())
    with torch.no_grad():
        encoder.level_embed.add_(1)
    for one, other in zip(before, encoder(random_features()), strict=True):
        assert torch.equal(one, other)


def test_never_reads_a_device_tensor_back():
    """A tensor on the meta device has no data to read, so reading it back would raise."""
    outputs = build().to("meta")(random_features("meta"))
    assert [tuple(output.shape) for output in outputs] == [(2, 16, *size) for size in SIZES]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_pixel_that_is_not_finite_is_not_lost(value: float) -> None:
    """Its locations may count as outside, but the residual branch and the weights pass it on."""
    for level, (height, width) in enumerate(SIZES):
        features = random_features()
        features[level][1, 5, height - 1, width - 1] = value
        outputs = build()(features)
        assert outputs[level][1, :, height - 1, width - 1].isnan().all()
        assert all(output[0].isfinite().all() for output in outputs)
