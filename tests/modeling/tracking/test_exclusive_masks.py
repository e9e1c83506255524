from __future__ import annotations

import torch
from torch.nn import functional as F

from ddep.modeling.mask_rows import Resize
from ddep.modeling.tracking.exclusive_masks import exclusive_masks


def test_each_pixel_goes_to_the_largest_positive_logit() -> None:
    logits = torch.randn(3, 4, 6, generator=torch.Generator().manual_seed(0))
    resized = F.interpolate(logits[None], (8, 12), mode="bilinear", align_corners=False)[0]
    resized = resized[:, :7, :11]
    masks = exclusive_masks(logits, (Resize((8, 12), kept=(7, 11)),))
    assert masks.shape == (3, 7, 11)
    for row in range(7):
        for column in range(11):
            values = resized[:, row, column].tolist()
            expected = [value == max(values) and value > 0 for value in values]
            assert masks[:, row, column].tolist() == expected
    assert (resized > 0).sum() > masks.sum() > 0


def test_no_masks() -> None:
    assert exclusive_masks(torch.zeros(0, 4, 6)).shape == (0, 4, 6)
