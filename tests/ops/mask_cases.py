"""Random arguments of mask losses and matching costs, and the tolerances of their results."""

from __future__ import annotations

import torch
from torch import Tensor

from tests.ops.mask_emulation import Case

# (results, gradients): norm of the difference over norm. Results of half types are float32.
TOLERANCE = {
    torch.float64: (1e-13, 1e-12),
    torch.float32: (2e-6, 1e-5),
    torch.float16: (2e-6, 1e-3),
    torch.bfloat16: (2e-6, 1e-2),
}
DTYPES = list(TOLERANCE)


def make_case(
    dtype: torch.dtype = torch.float32,
    *,
    layers: int = 2,
    images: int = 2,
    queries: int = 5,
    size: tuple[int, int] = (7, 9),
    pairs: int = 4,
    targets: int = 3,
    mask_size: tuple[int, int] = (19, 14),
    points: int | None = 150,
) -> Case:
    """Random pairs; two of a layer share a prediction. Some points lie outside, and on borders."""
    generator = torch.Generator().manual_seed(0)
    real = torch.float64 if dtype == torch.float64 else torch.float32
    shape = (images, queries, *size)
    logits = [(3 * torch.randn(shape, generator=generator)).to(dtype) for _ in range(layers)]
    index = (layers, pairs)
    of_images = torch.randint(images, index, generator=generator)
    of_queries = torch.randint(queries, index, generator=generator)
    if pairs > 2:
        of_images[:, 2], of_queries[:, 2] = of_images[:, 0], of_queries[:, 0]
    at = None
    if points is not None:
        at = torch.rand(*index, points, 2, generator=generator) * 1.2 - 0.1
        at[..., : points // 5, :] = at[..., : points // 5, :].clamp(0, 1)
        at = at.to(real)
    masks = (torch.rand(targets, *mask_size, generator=generator) < 0.4).byte()
    of_targets = torch.randint(max(targets, 1), index, generator=generator)
    return Case(logits, of_images, of_queries, masks, of_targets, at)


def make_costs(dtype: torch.dtype, num_targets: list[int], **options) -> Case:
    case = make_case(dtype, images=len(num_targets), targets=sum(num_targets), **options)
    if case.points is None:
        return case
    generator = torch.Generator().manual_seed(2)
    size = (len(num_targets), case.points.shape[-2], 2)
    return case._replace(points=torch.rand(size, generator=generator).to(case.real))


def relative_error(actual: Tensor, exact: Tensor) -> float:
    assert actual.shape == exact.shape
    difference, size = (actual.double() - exact).norm(), exact.norm()
    return float(difference / size if size > 0 else difference)
