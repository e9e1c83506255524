from __future__ import annotations

import math

import pytest
import torch
from transformers.models.mask2former.modeling_mask2former import Mask2FormerSinePositionEmbedding

from ddep.modeling.position_encoding import sine_position_encoding, sine_time_encoding


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
