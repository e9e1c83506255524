from __future__ import annotations

from collections import defaultdict
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional as F

from ddep.modeling.detr_postprocessing import detr_panoptic_inference
from ddep.modeling.mask_rows import Resize

THINGS = {0, 1}


def plain(
    mask_cls: Tensor, masks: Tensor, size: tuple[int, int]
) -> tuple[np.ndarray, list[dict[str, Any]]]:
    """The same with masks of the image's size, a query at a time; Pillow resizes the ids."""
    probabilities = mask_cls.double().softmax(-1)
    queries = [
        (int(p.argmax()), float(p.max()), mask.numpy())
        for p, mask in zip(probabilities, masks, strict=True)
        if p.argmax() < len(p) - 1 and p.max() > 0.85
    ]
    stuff: dict[int, list[int]] = defaultdict(list)
    for number, (cls, _, _) in enumerate(queries):
        if cls not in THINGS:
            stuff[cls].append(number)
    merge = True
    while queries:
        owner = np.argmax([mask for _, _, mask in queries], axis=0)
        if merge:
            for same in stuff.values():
                owner[np.isin(owner, same)] = same[0]
        merge = False
        picture = Image.fromarray(owner.astype(np.int32))
        owner = np.asarray(picture.resize(size[::-1], Image.Resampling.NEAREST))
        areas = [(owner == number).sum() for number in range(len(queries))]
        if min(areas) > 4:
            segments = [
                {"id": n, "isthing": cls in THINGS, "category_id": cls, "score": score}
                for n, (cls, score, _) in enumerate(queries, start=1)
            ]
            return owner + 1, segments
        queries = [query for query, area in zip(queries, areas, strict=True) if area > 4]
    return np.zeros(size, dtype=np.int64), []


@pytest.mark.parametrize("seed", range(6))
def test_segments_are_those_of_a_plain_loop(seed: int) -> None:
    torch.manual_seed(seed)
    # Odd sides: no centre of a pixel lies between two, where Pillow rounds by chance.
    queries, size = 30, (17, 23)
    mask_cls = torch.randn(queries, 5)
    mask_cls[torch.arange(queries), torch.randint(5, (queries,))] += 6
    masks = F.interpolate(3 * torch.randn(1, queries, 3, 4), (5, 7), mode="bilinear")[0]
    masks -= torch.rand(queries, 1, 1) * 2
    resized = F.interpolate(masks[None], (20, 28), mode="bilinear", align_corners=False)[0]
    found, segments = detr_panoptic_inference(
        mask_cls, masks, [Resize((20, 28), kept=(19, 27))], size, thing_ids=THINGS
    )
    expected, expected_segments = plain(mask_cls, resized[:, :19, :27], size)
    assert found.dtype == torch.int32
    np.testing.assert_array_equal(found.numpy(), expected)
    assert len(segments) == len(expected_segments) > 2
    for one, other in zip(segments, expected_segments, strict=True):
        assert one == {**other, "score": pytest.approx(other["score"])}


def run(classes: list[int], masks: Tensor) -> tuple[Tensor, list[int]]:
    mask_cls = torch.full((len(classes), 4), -5.0)
    mask_cls[torch.arange(len(classes)), classes] = 5.0
    found, segments = detr_panoptic_inference(
        mask_cls, masks, (), tuple(masks.shape[-2:]), thing_ids=THINGS
    )
    return found, [segment["category_id"] for segment in segments]


def test_four_pixels_are_too_few_and_five_are_not() -> None:
    masks = torch.zeros(2, 4, 5)
    masks[0] = 1
    masks[1, 0, :4] = 2
    found, classes = run([0, 1], masks)
    assert classes == [0] and (found == 1).all()
    masks[1, 0, 4] = 2
    found, classes = run([0, 1], masks)
    assert classes == [0, 1]
    assert (found[0] == 2).all() and (found[1:] == 1).all()


def test_stuff_of_one_class_is_its_first_query_and_things_stay_apart() -> None:
    masks = torch.zeros(3, 2, 12)
    masks[0, :, :3] = masks[1, :, 3:6] = masks[2, :, 6:] = 1
    found, classes = run([2, 2, 0], masks)
    assert classes == [2, 0]
    # Where the second had the largest logit, the other two are equal, and the first wins.
    assert (found[:, :6] == 1).all() and (found[:, 6:] == 2).all()
    assert run([1, 1, 0], masks)[1] == [1, 1, 0]


def test_no_object_and_low_scores_leave_an_empty_image() -> None:
    masks = torch.ones(2, 3, 4)
    found, classes = run([3, 3], masks)
    assert classes == [] and not found.any() and found.shape == (3, 4)
    found, segments = detr_panoptic_inference(
        torch.tensor([[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]]), masks, (), (3, 4), thing_ids=THINGS
    )
    assert segments == [] and not found.any()
