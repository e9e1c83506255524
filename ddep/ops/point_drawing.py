"""Points drawn at random, uniformly or where predictions are uncertain: the functions."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ddep.ops import extension
from ddep.ops.point_drawing_reference import uncertain_points_reference, uniform_points_reference


def draw_seed() -> Tensor:
    """Draw a seed for the functions below from PyTorch's global generator of the CPU.

    A run that restores the generator's state draws the same points, on a GPU too.

    Returns:
        A scalar of int64 on the CPU.
    """
    return torch.randint(2**63 - 1, (), device="cpu")


def uniform_points(seed: Tensor, rows: int, num_points: int, device: torch.device) -> Tensor:
    """Draw points uniformly from the unit square.

    The numbers are those of the counter-based generator Philox4x32-10 (Salmon et al., 2011,
    "Parallel random numbers: as easy as 1, 2, 3"): seed, row and point decide a number, and devices
    and threads do not. ``csrc/random_streams.h`` says how.

    Args:
        seed: a scalar of int64 on the CPU, as :func:`draw_seed` returns it.
        rows: number of rows R.
        num_points: points P of each row.
        device: where the points shall be; nothing waits for it.

    Returns:
        (R, P, 2) float32, x and y in [0, 1).
    """
    if extension.use_compiled(torch.device(device).type):
        return torch.ops.ddep.uniform_points(seed.to(device, non_blocking=True), rows, num_points)
    return uniform_points_reference(seed, rows, num_points, device)


def uncertain_points(
    mask_logits: Sequence[Tensor],
    images: Tensor,
    queries: Tensor,
    seed: Tensor,
    num_points: int,
    num_candidates: int,
    num_uncertain: int,
) -> Tensor:
    """Draw points for predicted masks, more of them where a logit is near 0.

    PointRend (Kirillov et al., 2020, arXiv 1912.08193), section 3.1: of uniformly drawn candidates,
    those with the smallest absolute logits are kept, and uniform points are added. A NaN counts as
    0, and of equal candidates the earlier ones are kept. Numbers are those of
    :func:`uniform_points`, from other streams. There is no gradient.

    Args:
        mask_logits: of L layers, (B, Q, h, w) floating each, all of one dtype and shape.
        images: (L, N) int64, the image of each mask that points are drawn for.
        queries: (L, N) int64, its query.
        seed: a scalar of int64 on the CPU.
        num_points: P, points of each mask.
        num_candidates: uniform points that the uncertain ones are chosen from.
        num_uncertain: how many of the P points are chosen.

    Returns:
        (L, N, P, 2) float32, x and y in [0, 1) as fractions of width and height; the chosen points
        first, in the order in which they were drawn.

    Raises:
        ValueError: an argument's shape, dtype or device does not fit the others', an index on the
            CPU is out of range, or ``num_uncertain`` is larger than one of the other numbers.
    """
    if extension.use_compiled(mask_logits[0].device.type):
        run = torch.ops.ddep.uncertain_points
    else:
        run = uncertain_points_reference
    return run(mask_logits, images, queries, seed, num_points, num_candidates, num_uncertain)
