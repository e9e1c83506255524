"""TrackFormer learns to follow objects that look alike."""

from __future__ import annotations

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Instances
from torch import Tensor

from tests.modeling.meta_arch.small_mask_former import tiny_track_config

SIDE, FRAMES = 64, 8


def squares_at(time: int) -> tuple[Tensor, Instances]:
    """Two equal squares: one above that moves to the right, one below that moves to the left."""
    masks = torch.zeros(2, SIDE, SIDE, dtype=torch.bool)
    masks[0, 8:24, 4 + 5 * time : 20 + 5 * time] = True
    masks[1, 38:54, 44 - 5 * time : 60 - 5 * time] = True
    image = torch.full((3, SIDE, SIDE), 40, dtype=torch.uint8)
    image[:, masks.any(0)] = 230
    instances = Instances((SIDE, SIDE))
    instances.gt_classes = torch.tensor([1, 1])
    instances.gt_ids = torch.tensor([1, 2])
    instances.gt_masks = masks
    return image, instances


@pytest.mark.slow
def test_two_equal_squares_keep_their_numbers() -> None:
    torch.manual_seed(0)
    model = build_model(tiny_track_config())
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    video = [squares_at(time) for time in range(FRAMES)]
    generator = torch.Generator().manual_seed(0)
    for seed in range(150):
        batch = []
        for number in range(2):
            first = int(torch.randint(FRAMES, (), generator=generator))
            second = first + int(torch.randint(-2, 3, (), generator=generator))
            pair = [video[first], video[min(max(second, 0), FRAMES - 1)]]
            images, instances = zip(*pair, strict=True)
            batch.append({"image": images, "instances": instances, "seed": 2 * seed + number})
        loss = sum(model(batch).values())
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()

    model.eval()
    of_square: list[set[int]] = [set(), set()]
    for found in model.track((image for image, _ in video), (SIDE, SIDE)):
        assert len(found.track_ids) == 2
        truth = video[found.frame][1].gt_masks
        for number, mask in zip(found.track_ids, found.masks, strict=True):
            overlaps = (mask & truth).sum((1, 2)) / (mask | truth).sum((1, 2))
            assert overlaps.max() > 0.7
            of_square[int(overlaps.argmax())].add(number)
    assert len(of_square[0]) == len(of_square[1]) == 1
    assert of_square[0] != of_square[1]
