from __future__ import annotations

import numpy as np
import torch

from ddep.modeling.meta_arch.mask_former import MaskLogits
from ddep.web.queries import class_scores, query_of


def logits() -> MaskLogits:
    """Query 0: class 0 on the left; 1: class 0 on the right; 2: class 1 on the right.

    The lower half of the padded image is padding, where query 1 claims all.
    """
    mask_cls = torch.tensor([[5.0, 0, 0], [5, 0, 0], [0, 5, 0]])
    left = torch.tensor([9.0, 9, -9, -9]).expand(2, 4)
    padding = torch.stack([left * 0 - 9, left * 0 + 9, left * 0 - 9])
    masks = torch.cat([torch.stack([left, -left, -left]), padding], dim=1)
    return MaskLogits(mask_cls, masks, (16, 16), (8, 16), (8, 16))


def test_the_query_has_the_class_and_the_place_of_the_segment() -> None:
    left = np.zeros((24, 48), dtype=bool)
    left[:, :24] = True
    assert query_of(logits(), left, class_id=0) == 0
    assert query_of(logits(), ~left, class_id=0) == 1
    assert query_of(logits(), ~left, class_id=1) == 2


def test_padding_is_no_part_of_the_image() -> None:
    """The upper half of the image is a quarter of the padded one."""
    rows = torch.tensor([[9.0, -9, -9, -9], [9, 9, -9, -9]])[..., None].expand(2, 4, 4)
    both = MaskLogits(torch.tensor([[5.0, 0], [5, 0]]), rows, (16, 16), (8, 16), (8, 16))
    upper = np.zeros((8, 16), dtype=bool)
    upper[:4] = True
    assert query_of(both, upper, class_id=0) == 0
    assert query_of(both, np.ones_like(upper), class_id=0) == 1


def test_class_scores_are_a_softmax() -> None:
    scores = class_scores(logits(), 2)
    expected = np.exp([0, 5, 0]) / np.exp([0, 5, 0]).sum()
    np.testing.assert_allclose(scores.numpy(), expected, rtol=1e-5)
