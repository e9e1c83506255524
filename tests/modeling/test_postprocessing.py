"""Post-processing, compared with Hugging Face's, with loops over pixels, and by hand."""

from __future__ import annotations

from collections.abc import Collection
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.structures import BitMasks
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from transformers.models.mask2former.image_processing_mask2former import (
    Mask2FormerImageProcessor,
)
from transformers.models.maskformer.image_processing_maskformer import MaskFormerImageProcessor

from ddep.modeling.mask_rows import CPU_BLOCK, Resize
from ddep.modeling.postprocessing import (
    instance_inference,
    masks_to_boxes,
    panoptic_inference,
    semantic_inference,
)

SIDE = 384  # Hugging Face resizes masks to this


def hugging_face_outputs(mask_cls: Tensor, mask_pred: Tensor) -> SimpleNamespace:
    return SimpleNamespace(
        class_queries_logits=mask_cls[None], masks_queries_logits=mask_pred[None]
    )


def smooth_masks(queries: int, seed: int, height: int = SIDE, width: int = SIDE) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    coarse = 4 * torch.randn(1, queries, 5, 5, generator=generator)
    return torch.nn.functional.interpolate(coarse, size=(height, width), mode="bicubic")[0]


def class_logits(classes: list[int], scores: list[float], num_classes: int) -> Tensor:
    """Logits of queries with these classes and these probabilities."""
    probabilities = torch.zeros(len(classes), num_classes + 1)
    for query, (label, score) in enumerate(zip(classes, scores, strict=True)):
        probabilities[query] = (1 - score) / num_classes
        probabilities[query, label] = score
    return probabilities.log()


def test_semantic_against_hugging_face_and_the_formula() -> None:
    mask_cls = torch.randn(6, 5, generator=torch.Generator().manual_seed(0))
    mask_pred = smooth_masks(6, seed=1)
    scores = semantic_inference(mask_cls, mask_pred)
    [reference] = Mask2FormerImageProcessor().post_process_semantic_segmentation(
        hugging_face_outputs(mask_cls, mask_pred), return_segmentation_scores=True
    )
    torch.testing.assert_close(scores, reference.segmentation_scores)
    assert torch.equal(scores.argmax(0), reference.segmentation)

    exponentials = np.exp(mask_cls.double().numpy())
    probabilities = exponentials / exponentials.sum(1, keepdims=True)
    pixel = 1 / (1 + np.exp(-mask_pred[:, 17, 300].double().numpy()))
    np.testing.assert_allclose(scores[:, 17, 300], probabilities[:, :4].T @ pixel, rtol=1e-5)


def test_panoptic_things_against_hugging_face() -> None:
    # The definitions agree if all scores are 1 and every pixel is inside its query's mask.
    mask_pred = smooth_masks(8, seed=2) - 2
    mask_pred[3] = 0.1
    mask_cls = torch.full((8, 5), -200.0)
    mask_cls[torch.arange(8), torch.tensor([0, 1, 1, 2, 4, 3, 0, 2])] = 200.0  # query 4: nothing
    segmentation, info = panoptic_inference(
        mask_cls,
        mask_pred,
        thing_ids=range(4),
        object_mask_threshold=0.8,
        overlap_threshold=0.5,
    )
    [reference] = Mask2FormerImageProcessor().post_process_panoptic_segmentation(
        hugging_face_outputs(mask_cls, mask_pred),
        threshold=0.8,
        overlap_mask_area_threshold=0.5,
        label_ids_to_fuse=set(),
    )
    assert 3 <= len(info) <= 6  # some queries lose too much of their mask, and are dropped
    assert torch.equal(segmentation, reference["segmentation"])
    expected = [(segment["id"], segment["label_id"]) for segment in reference["segments_info"]]
    assert [(segment["id"], segment["category_id"]) for segment in info] == expected
    assert all(segment["isthing"] is True for segment in info)


@pytest.mark.parametrize("seed", range(4))
def test_maskformers_panoptic_against_hugging_face(seed: int) -> None:
    """All scores are 1, because Hugging Face weights masks by scores before measuring them."""
    generator = torch.Generator().manual_seed(seed)
    mask_cls = torch.full((12, 5), -200.0)
    mask_cls[torch.arange(12), torch.randint(5, (12,), generator=generator)] = 200.0
    mask_pred = smooth_masks(12, seed=seed + 100) - 2  # many pixels are in no mask
    segmentation, info = panoptic_inference(
        mask_cls,
        mask_pred,
        thing_ids=range(4),
        object_mask_threshold=0.8,
        overlap_threshold=0.2,
        mask_threshold=0.0,
    )
    [reference] = MaskFormerImageProcessor().post_process_panoptic_segmentation(
        hugging_face_outputs(mask_cls, mask_pred),
        threshold=0.8,
        overlap_mask_area_threshold=0.2,
        label_ids_to_fuse=set(),
        target_sizes=[(SIDE, SIDE)],
    )
    assert len(info) > 2
    assert torch.equal(segmentation, reference["segmentation"])
    expected = [(segment["id"], segment["label_id"]) for segment in reference["segments_info"]]
    assert [(segment["id"], segment["category_id"]) for segment in info] == expected


def test_an_empty_mask_is_no_segment_even_without_a_mask_threshold() -> None:
    mask_cls = class_logits([0, 1], [0.9, 0.4], 2)
    masks = torch.full((2, 4, 4), -3.0)
    masks[1] = 0.1
    masks[0, 0] = -0.1  # a row that query 0 owns, although its own mask is empty
    segmentation, info = panoptic_inference(
        mask_cls,
        masks,
        thing_ids=[0, 1],
        object_mask_threshold=0.0,
        overlap_threshold=0.0,
        mask_threshold=0.0,
    )
    assert [segment["category_id"] for segment in info] == [1]
    assert segmentation.tolist() == [[0] * 4] + [[1] * 4] * 3


def panoptic_by_loops(
    mask_cls: Tensor,
    mask_pred: Tensor,
    thing_ids: Collection[int],
    object_mask_threshold: float,
    overlap_threshold: float,
    mask_threshold: float,
) -> tuple[np.ndarray, list[dict[str, object]]]:
    """The definition, one pixel and one query at a time, in float64."""
    classes = mask_cls.double().softmax(-1).numpy()
    masks = mask_pred.double().sigmoid().numpy()
    queries = [
        q
        for q in range(len(classes))
        if classes[q].argmax() != classes.shape[1] - 1 and classes[q].max() > object_mask_threshold
    ]
    height, width = masks.shape[1:]
    owner = np.full((height, width), -1)
    for y in range(height):
        for x in range(width):
            if queries:
                owner[y, x] = max(queries, key=lambda q: classes[q].max() * masks[q, y, x])
    result = np.zeros((height, width), dtype=np.int32)
    info: list[dict[str, object]] = []
    for q in queries:
        area = ((owner == q) & (masks[q] >= mask_threshold)).sum()
        if (
            area == 0
            or not (masks[q] >= 0.5).any()
            or (owner == q).sum() / (masks[q] >= 0.5).sum() < overlap_threshold
        ):
            continue
        label = int(classes[q].argmax())
        same = [s["id"] for s in info if s["category_id"] == label and not s["isthing"]]
        segment_id = same[0] if same else len(info) + 1
        if not same:
            info.append(
                {
                    "id": segment_id,
                    "isthing": label in thing_ids,
                    "category_id": label,
                    "score": pytest.approx(classes[q].max(), rel=1e-5),
                }
            )
        result[(owner == q) & (masks[q] >= mask_threshold)] = segment_id
    return result, info


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(("score", "overlap"), [(0.0, 0.0), (0.3, 0.8)])
@pytest.mark.parametrize("mask_threshold", [0.5, 0.0])
def test_panoptic_against_loops(
    seed: int, score: float, overlap: float, mask_threshold: float
) -> None:
    generator = torch.Generator().manual_seed(seed)
    mask_cls = 2 * torch.randn(12, 5, generator=generator)
    mask_pred = smooth_masks(12, seed=seed + 100, height=17, width=23) - 1
    arguments = {
        "thing_ids": {0, 2},
        "object_mask_threshold": score,
        "overlap_threshold": overlap,
        "mask_threshold": mask_threshold,
    }
    segmentation, info = panoptic_inference(mask_cls, mask_pred, **arguments)
    expected, expected_info = panoptic_by_loops(mask_cls, mask_pred, **arguments)
    assert segmentation.dtype == torch.int32
    np.testing.assert_array_equal(segmentation.numpy(), expected)
    assert info == expected_info
    assert sorted(set(segmentation.unique().tolist()) - {0}) == [segment["id"] for segment in info]


def test_panoptic_by_hand() -> None:
    # Class 0 is stuff, class 1 a thing. Columns 0 and 1: stuff; column 3: stuff again; column 2:
    # a thing; column 4: no query is sure; the first query covers the last.
    masks = torch.full((5, 2, 5), -5.0)
    masks[0, :, :2] = masks[1, :, 3] = masks[2, :, 2] = 5.0
    masks[3, :, 4] = -0.1
    masks[4, :, :2] = 4.0
    mask_cls = class_logits([0, 0, 1, 1, 1], [0.9, 0.8, 0.7, 0.9, 0.5], 2)
    segmentation, info = panoptic_inference(
        mask_cls, masks, thing_ids=[1], object_mask_threshold=0.4, overlap_threshold=0.8
    )
    assert segmentation.tolist() == [[1, 1, 2, 1, 0]] * 2
    assert info == [
        {"id": 1, "isthing": False, "category_id": 0, "score": pytest.approx(0.9)},
        {"id": 2, "isthing": True, "category_id": 1, "score": pytest.approx(0.7)},
    ]


def test_panoptic_without_any_query() -> None:
    mask_cls = class_logits([0, 2], [0.4, 0.99], 2)  # below the threshold, and no object
    segmentation, info = panoptic_inference(
        mask_cls,
        torch.ones(2, 3, 5),
        thing_ids=[0],
        object_mask_threshold=0.5,
        overlap_threshold=0.8,
    )
    assert info == []
    assert torch.equal(segmentation, torch.zeros(3, 5, dtype=torch.int32))


def test_instances_against_hugging_face() -> None:
    mask_cls = 2 * torch.randn(7, 4, generator=torch.Generator().manual_seed(3))
    mask_pred = smooth_masks(7, seed=4)
    instances = instance_inference(mask_cls, mask_pred, max_detections=7)
    [reference] = Mask2FormerImageProcessor().post_process_instance_segmentation(
        hugging_face_outputs(mask_cls, mask_pred), threshold=0.0, return_binary_maps=True
    )
    info = reference["segments_info"]
    order = sorted(range(7), key=lambda k: -info[k]["score"])
    ours = instances.scores.argsort(descending=True)
    torch.testing.assert_close(
        instances.scores[ours], torch.tensor([info[k]["score"] for k in order]), atol=2e-6, rtol=0
    )
    assert instances.pred_classes[ours].tolist() == [info[k]["label_id"] for k in order]
    assert torch.equal(instances.pred_masks[ours], reference["segmentation"][order].bool())
    assert instances.image_size == (SIDE, SIDE)


def test_instances_by_hand() -> None:
    masks = torch.full((2, 4, 6), -1.0)
    masks[0, 1:3, 2:5] = torch.tensor(0.75).logit()
    mask_cls = class_logits([0, 1], [0.8, 0.6], 2)
    instances = instance_inference(mask_cls, masks, max_detections=2)
    assert instances.pred_classes.tolist() == [0, 1]
    assert instances.pred_masks.dtype == torch.bool
    assert instances.pred_masks.sum((1, 2)).tolist() == [6, 0]
    # The second mask is empty: it has no box and no score.
    assert instances.pred_boxes.tensor.tolist() == [[2, 1, 5, 3], [0, 0, 0, 0]]
    torch.testing.assert_close(instances.scores, torch.tensor([0.8 * 0.75, 0.0]))


def test_instances_take_all_pairs_at_most_and_only_wanted_classes() -> None:
    mask_cls = torch.randn(3, 5, generator=torch.Generator().manual_seed(5))
    mask_pred = smooth_masks(3, seed=6, height=5, width=7)
    instances = instance_inference(mask_cls, mask_pred, max_detections=100)
    assert sorted(instances.pred_classes.tolist()) == sorted([0, 1, 2, 3] * 3)
    some = instance_inference(mask_cls, mask_pred, max_detections=100, class_ids={1, 3})
    keep = torch.tensor([label in (1, 3) for label in instances.pred_classes.tolist()])
    assert len(some) == 6
    assert torch.equal(some.scores, instances.scores[keep])
    assert torch.equal(some.pred_masks, instances.pred_masks[keep])
    none = instance_inference(mask_cls, mask_pred, max_detections=100, class_ids=[])
    assert len(none) == 0
    assert none.pred_boxes.tensor.shape == (0, 4)


def test_boxes_against_detectron2() -> None:
    masks = torch.rand(20, 9, 14, generator=torch.Generator().manual_seed(7)) > 0.95
    masks[0] = False
    masks[1] = True
    boxes = masks_to_boxes(masks)
    assert torch.equal(boxes, BitMasks(masks).get_bounding_boxes().tensor)
    assert boxes[0].tolist() == [0, 0, 0, 0]
    assert boxes[1].tolist() == [0, 0, 14, 9]


class LargestTensor(TorchDispatchMode):
    """Records the number of elements of the largest tensor that an operation returns."""

    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        for tensor in result if isinstance(result, (tuple, list)) else [result]:
            if isinstance(tensor, Tensor):
                self.elements = max(self.elements, tensor.numel())
        return result


def test_memory_of_results() -> None:
    """No tensor has all queries at the output's size; blocks are smaller than the results."""
    queries, num_classes, size = 100, 4, (600, 800)
    mask_pred = smooth_masks(queries, seed=8, height=48, width=64)
    mask_cls = torch.randn(queries, num_classes + 1, generator=torch.Generator().manual_seed(9))
    mask_cls[6:, -1] = 30.0  # six queries have a class
    steps = [Resize((192, 256), (190, 250)), Resize(size, size)]
    pixels = size[0] * size[1]
    with LargestTensor() as semantic:
        scores = semantic_inference(mask_cls, mask_pred, steps)
    assert scores.shape == (num_classes, *size)
    assert semantic.elements == scores.numel()
    with LargestTensor() as panoptic:
        segmentation, info = panoptic_inference(
            mask_cls,
            mask_pred,
            steps,
            thing_ids={0},
            object_mask_threshold=0.2,
            overlap_threshold=0.0,
        )
    assert segmentation.shape == size
    assert len(info) > 1
    assert panoptic.elements <= max(pixels, CPU_BLOCK)
    with LargestTensor() as instance:
        instances = instance_inference(mask_cls, mask_pred, steps, max_detections=5)
    assert instances.pred_masks.shape == (5, *size)
    assert instance.elements == instances.pred_masks.numel()


class HostCopies(TorchFunctionMode):
    """Lists the calls for which the host would wait for a GPU."""

    WAITING = frozenset(
        ["tolist", "item", "numpy", "cpu", "__bool__", "__int__", "__float__", "__index__"]
        + ["nonzero", "argwhere", "masked_select", "unique", "bincount"]
    )

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        name = func.__name__
        by_bools = name in ("__getitem__", "__setitem__") and any(
            isinstance(index, Tensor) and index.dtype == torch.bool
            for index in (args[1] if isinstance(args[1], tuple) else args[1:2])
        )
        if name in self.WAITING or by_bools:
            self.calls.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(("queries", "copies"), [(40, 2), (0, 1)])
def test_panoptic_copies_twice_to_the_host(queries: int, copies: int) -> None:
    mask_cls = torch.full((60, 5), -20.0)
    mask_cls[torch.arange(60), torch.arange(60) % 4] = 0.0
    mask_cls[queries:, -1] = 9.0
    mask_pred = smooth_masks(60, seed=10, height=40, width=56)
    with HostCopies() as host:
        _, info = panoptic_inference(
            mask_cls, mask_pred, thing_ids={0, 1}, object_mask_threshold=0.5, overlap_threshold=0.1
        )
    assert bool(info) == bool(queries)
    assert len(host.calls) == copies, host.calls
