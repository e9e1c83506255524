"""Queries besides the learned ones, as many for each image as it has."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class ExtraQueries(NamedTuple):
    """Queries that follow the learned ones, for one batch.

    Attributes:
        content: (B, E, C) float, zeros where an image has fewer than E.
        valid: (B, E) bool, true for queries, false for padding.
    """

    content: Tensor
    valid: Tensor


def pad_queries(queries: Sequence[Sequence[Tensor]]) -> ExtraQueries | None:
    """Put the extra queries of all images side by side.

    Args:
        queries: of each image E_i of (C,), on one device.

    Returns:
        The batch, E the largest E_i; None if no image has any.
    """
    counts = [len(of_image) for of_image in queries]
    if not any(counts):
        return None
    some = next(query for of_image in queries for query in of_image)
    content = some.new_zeros(len(queries), max(counts), len(some))
    for row, of_image in zip(content, queries, strict=True):
        if len(of_image):
            row[: len(of_image)] = torch.stack(list(of_image))
    places = torch.arange(max(counts), device=content.device)
    return ExtraQueries(content, places < torch.tensor(counts, device=content.device)[:, None])
