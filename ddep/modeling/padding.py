"""Images of different sizes in a batch, which are padded at the bottom and on the right."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def valid_cells(
    image_sizes: Sequence[tuple[int, int]],
    padded_size: tuple[int, int],
    cells: tuple[int, int],
    device: torch.device | str,
) -> Tensor | None:
    """Which cells of a feature map show some of an image, not only its padding.

    As in DETR, a cell does if the pixel at its upper left corner belongs to the image.

    Args:
        image_sizes: height and width of each image, at the top left of the padded one, in pixels.
        padded_size: height and width of the padded images.
        cells: height and width of the feature map.
        device: of the result.

    Returns:
        (B, h, w) bool; None if all cells of all images do.
    """
    counts = [
        tuple(
            -(-side * number // padded)  # rounded up
            for side, padded, number in zip(size, padded_size, cells, strict=True)
        )
        for size in image_sizes
    ]
    if all(count == tuple(cells) for count in counts):
        return None
    rows, columns = torch.tensor(counts, device=device).unbind(1)
    in_rows = torch.arange(cells[0], device=device) < rows[:, None]
    in_columns = torch.arange(cells[1], device=device) < columns[:, None]
    return in_rows[:, :, None] & in_columns[:, None, :]
