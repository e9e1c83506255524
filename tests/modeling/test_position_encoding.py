from __future__ import annotations

import math

import pytest
import torch
from transformers.models.detr.modeling_detr import (
    DetrLearnedPositionEmbedding,
    DetrSinePositionEmbedding,
)
from transformers.models.mask2former.modeling_mask2former import Mask2FormerSinePositionEmbedding

from ddep.errors import UserError
from ddep.modeling.position_encoding import (
    PositionEmbeddingLearned,
    padded_sine_position_encoding,
    sine_position_encoding,
    sine_time_encoding,
)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (5, 9), (16, 8)])
def test_matches_formula(height, width):
    encoding = sine_position_encoding(height, width, 16, "cpu")
    assert encoding.shape == (1, 16, height, width)
    assert encoding.dtype == torch.float32
    expected = torch.empty(16, height, width, dtype=torch.float64)
    for y in range(height):
        for x in range(width):
            for k in range(8):
                frequency = 10000 ** (-2 * (k // 2) / 8)
                wave = math.cos if k % 2 else math.sin
                expected[k, y, x] = wave(2 * math.pi * (y + 1) / (height + 1e-6) * frequency)
                expected[8 + k, y, x] = wave(2 * math.pi * (x + 1) / (width + 1e-6) * frequency)
    torch.testing.assert_close(encoding[0].double(), expected, rtol=0, atol=2e-6)


def test_matches_hugging_face():
    theirs = Mask2FormerSinePositionEmbedding(num_position_features=128, normalize=True)
    expected = theirs(torch.Size([1, 256, 13, 20]), torch.device("cpu"), torch.float32)
    torch.testing.assert_close(
        sine_position_encoding(13, 20, 256, "cpu"), expected, rtol=0, atol=2e-6
    )


def test_time_matches_formula():
    """Frequencies are spread over all channels, not over half of them."""
    encoding = sine_time_encoding(5, 16, "cpu")
    assert encoding.shape == (5, 16, 1, 1)
    for frame in range(5):
        for k in range(16):
            frequency = 10000 ** (-2 * (k // 2) / 16)
            wave = math.cos if k % 2 else math.sin
            expected = wave(2 * math.pi * (frame + 1) / (5 + 1e-6) * frequency)
            assert abs(float(encoding[frame, k]) - expected) < 2e-6


def test_padding_matches_hugging_face_and_is_not_counted():
    sizes = [(5, 9), (3, 9), (5, 2), (4, 7)]
    valid = torch.zeros(4, 5, 9, dtype=torch.bool)
    for image, (height, width) in enumerate(sizes):
        valid[image, :height, :width] = True
    found = padded_sine_position_encoding(valid, 16)
    theirs = DetrSinePositionEmbedding(8, normalize=True)
    expected = theirs(torch.Size([4, 16, 5, 9]), torch.device("cpu"), torch.float32, valid)
    torch.testing.assert_close(found, expected, rtol=0, atol=2e-6)
    for image, (height, width) in enumerate(sizes):
        alone = sine_position_encoding(height, width, 16, "cpu")[0]
        shown = found[image, :, :height, :width]
        torch.testing.assert_close(shown, alone, rtol=0, atol=2e-6)


def test_learned_positions_match_hugging_face():
    ours, theirs = PositionEmbeddingLearned(12), DetrLearnedPositionEmbedding(6)
    theirs.row_embeddings.weight = ours.row_embed.weight
    theirs.column_embeddings.weight = ours.col_embed.weight
    expected = theirs(torch.Size([1, 12, 4, 7]), torch.device("cpu"), torch.float32)
    assert torch.equal(ours(4, 7), expected)
    assert ours(50, 50).shape == (1, 12, 50, 50)
    for size in [(51, 3), (3, 51)]:
        with pytest.raises(UserError, match="positions for 50 rows and columns, but the backbone"):
            ours(*size)
