"""Sine position encodings of images."""

from __future__ import annotations

import math

import torch


def sine_position_encoding(
    height: int, width: int, channels: int, device: torch.device | str
) -> torch.Tensor:
    """Encode where each pixel is by sines and cosines of its row and column.

    The encoding of "Attention is all you need" (arXiv 1706.03762, section 3.5, temperature 10000),
    carried over to images by DETR (arXiv 2005.12872, appendix A.4): the first half of the channels
    encodes the row, the second half the column, each counted from 1 and scaled so that the last
    is at 2 pi. The sine and cosine of a frequency are neighbours.

    Args:
        height, width: of the feature map, in pixels.
        channels: C, a multiple of 4.
        device: where the encoding is computed.

    Returns:
        (1, C, height, width) float32.
    """
    features = channels // 2
    frequencies = 10000.0 ** -(torch.arange(0, features, 2, device=device) / features)

    def encode(length: int) -> torch.Tensor:
        steps = torch.arange(1, length + 1, dtype=torch.float32, device=device)
        angles = steps / (length + 1e-6) * (2 * math.pi)
        angles = frequencies[:, None] * angles
        # (C / 4, 2, length) -> (C / 2, length)
        return torch.stack([angles.sin(), angles.cos()], dim=1).flatten(0, 1)

    rows = encode(height)[:, :, None].expand(-1, -1, width)
    columns = encode(width)[:, None, :].expand(-1, height, -1)
    return torch.cat([rows, columns])[None]
