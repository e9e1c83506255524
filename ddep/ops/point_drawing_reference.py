"""Points drawn at random, in plain PyTorch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from ddep.ops.mask_losses_reference import matched_logits

# Streams of random numbers, as in csrc/random_streams.h.
UNIFORM, CANDIDATES, REST = range(3)

_WORD = 2**32 - 1


def philox(key: Sequence[Tensor | int], counter: Sequence[Tensor | int]) -> tuple[Tensor, ...]:
    """Compute Philox4x32-10 (Salmon et al., 2011, section 3.3): four random words of a counter.

    Args:
        key: two words, int64 tensors or integers in [0, 2^32).
        counter: four words that broadcast, the first a tensor.

    Returns:
        Four words, int64 in [0, 2^32).
    """
    key_0, key_1 = key
    word_0, word_1, word_2, word_3 = counter
    for _ in range(10):
        # Products of 64 bits overflow int64, but have the right bits.
        product_0, product_1 = word_0 * 0xD2511F53, word_2 * 0xCD9E8D57
        word_0 = (product_1 >> 32 & _WORD) ^ word_1 ^ key_0
        word_2 = (product_0 >> 32 & _WORD) ^ word_3 ^ key_1
        word_1, word_3 = product_1 & _WORD, product_0 & _WORD
        key_0, key_1 = key_0 + 0x9E3779B9 & _WORD, key_1 + 0xBB67AE85 & _WORD
    return word_0, word_1, word_2, word_3


def random_points(
    seed: Tensor, rows: int, num_points: int, stream: int, device: torch.device
) -> Tensor:
    """Draw (rows, num_points, 2) float32, uniform in [0, 1), from one of the streams of a seed."""
    pairs = torch.arange((num_points + 1) // 2, device=device).expand(rows, -1)
    row = torch.arange(rows, device=device)[:, None].expand_as(pairs)
    streams = torch.full_like(pairs, stream)
    words = philox((seed & _WORD, seed >> 32 & _WORD), (pairs, row, streams, 0))
    points = (torch.stack(words, -1) >> 8).float() * 2.0**-24
    return points.view(*pairs.shape, 2, 2).flatten(1, 2)[:, :num_points]


def uniform_points_reference(
    seed: Tensor, rows: int, num_points: int, device: torch.device
) -> Tensor:
    """Compute :func:`ddep.ops.uniform_points`, which describes arguments and results."""
    return random_points(seed, rows, num_points, UNIFORM, device)


@torch.no_grad()
def uncertain_points_reference(
    mask_logits: Sequence[Tensor],
    images: Tensor,
    queries: Tensor,
    seed: Tensor,
    num_points: int,
    num_candidates: int,
    num_uncertain: int,
) -> Tensor:
    """Compute :func:`ddep.ops.uncertain_points`, which describes arguments and results."""
    if not 0 <= num_uncertain <= min(num_points, num_candidates):
        raise ValueError(
            f"uncertain_points: num_uncertain is {num_uncertain}; expected from 0 to num_points "
            f"{num_points} and to num_candidates {num_candidates}"
        )
    logits = matched_logits(mask_logits, images, queries)
    device, rows = logits.device, images.numel()
    candidates = random_points(seed, rows, num_candidates, CANDIDATES, device)
    grid = (2 * candidates.to(logits.dtype) - 1)[:, None]  # grid_sample's [-1, 1]
    sampled = F.grid_sample(logits[:, None], grid, align_corners=False).flatten(1)
    distances = sampled.abs().nan_to_num(nan=0.0, posinf=torch.inf)
    nearest = distances.argsort(dim=-1, stable=True)[:, :num_uncertain].sort(-1).values
    uncertain = candidates.gather(1, nearest[..., None].expand(-1, -1, 2))
    rest = random_points(seed, rows, num_points - num_uncertain, REST, device)
    return torch.cat([uncertain, rest], 1).view(*images.shape, num_points, 2)
