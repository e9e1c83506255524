"""Position encodings of images and of videos: sines and cosines, or learned."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from ddep.errors import UserError


def sine_position_encoding(
    height: int, width: int, channels: int, device: torch.device | str
) -> Tensor:
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


def padded_sine_position_encoding(valid: Tensor, channels: int) -> Tensor:
    """As :func:`sine_position_encoding`, of images that are padded to one size.

    Rows and columns are counted over the valid pixels only, so that an image has the same encoding
    with and without padding.

    Args:
        valid: (B, H, W) bool, false in the padding.
        channels: C, a multiple of 4.

    Returns:
        (B, C, H, W) float32; padding has finite numbers without a meaning.
    """
    halves = []
    for dim in (1, 2):
        steps = valid.cumsum(dim, dtype=torch.float32)
        length = steps.narrow(dim, steps.shape[dim] - 1, 1)
        halves.append(_waves(steps / (length + 1e-6) * (2 * math.pi), channels // 2))
    return torch.cat(halves).transpose(0, 1)


def sine_time_encoding(num_frames: int, channels: int, device: torch.device | str) -> Tensor:
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


class PositionEmbeddingLearned(nn.Module):
    """DETR's learned alternative: one vector for each row and one for each column.

    Args:
        channels: C, even: the first half encodes the column, the second half the row.
        length: how many rows, and how many columns, there can be.
    """

    def __init__(self, channels: int, length: int = 50) -> None:
        super().__init__()
        self.row_embed = nn.Embedding(length, channels // 2)
        self.col_embed = nn.Embedding(length, channels // 2)
        nn.init.uniform_(self.row_embed.weight)
        nn.init.uniform_(self.col_embed.weight)

    def forward(self, height: int, width: int) -> Tensor:
        """Encode a feature map of this size: (1, C, height, width).

        Raises:
            UserError: it has more rows or columns than there are vectors.
        """
        length = len(self.row_embed.weight)
        if max(height, width) > length:
            raise UserError(
                f"MODEL.DETR.POSITION_EMBEDDING is learned, which has positions for {length} rows "
                f"and columns, but the backbone's last feature has {height} x {width}; make the "
                "sizes in INPUT smaller, or set the key to sine"
            )
        columns = self.col_embed.weight[:width].T[:, None, :].expand(-1, height, -1)
        rows = self.row_embed.weight[:height].T[:, :, None].expand(-1, -1, width)
        return torch.cat([columns, rows])[None]


def _encode(length: int, features: int, device: torch.device | str) -> Tensor:
    """(features, length): sines and cosines of places that are counted from 1."""
    steps = torch.arange(1, length + 1, dtype=torch.float32, device=device)
    return _waves(steps / (length + 1e-6) * (2 * math.pi), features)


def _waves(angles: Tensor, channels: int) -> Tensor:
    """Sines and cosines of several frequencies: (...) in radians -> (channels, ...)."""
    steps = torch.arange(0, channels, 2, device=angles.device)
    frequencies = 10000.0 ** -(steps / channels)
    angles = frequencies.view(-1, *[1] * angles.dim()) * angles
    return torch.stack([angles.sin(), angles.cos()], dim=1).flatten(0, 1)
