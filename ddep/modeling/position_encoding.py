"""Sine position encodings of images and of videos."""

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
    rows = _encode(height, channels // 2, device)[:, :, None].expand(-1, -1, width)
    columns = _encode(width, channels // 2, device)[:, None, :].expand(-1, height, -1)
    return torch.cat([rows, columns])[None]


def sine_time_encoding(num_frames: int, channels: int, device: torch.device | str) -> torch.Tensor:
    """Encode when each frame of a clip is; added to :func:`sine_position_encoding`.

    Mask2Former for videos (Cheng et al., 2021, arXiv 2112.10764, section 3.2): all channels encode
    the frame's number, which is counted from 1 and scaled so that the last is at 2 pi. A single
    frame gets a constant.

    Args:
        num_frames: T.
        channels: C, an even number.
        device: where the encoding is computed.

    Returns:
        (T, C, 1, 1) float32.
    """
    return _encode(num_frames, channels, device).T[:, :, None, None]


def _encode(length: int, features: int, device: torch.device | str) -> torch.Tensor:
    """(features, length): sines and cosines of places that are counted from 1."""
    frequencies = 10000.0 ** -(torch.arange(0, features, 2, device=device) / features)
    steps = torch.arange(1, length + 1, dtype=torch.float32, device=device)
    angles = steps / (length + 1e-6) * (2 * math.pi)
    angles = frequencies[:, None] * angles
    # (features / 2, 2, length) -> (features, length)
    return torch.stack([angles.sin(), angles.cos()], dim=1).flatten(0, 1)
