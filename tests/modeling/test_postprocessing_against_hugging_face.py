"""Post-processing, compared with Hugging Face's on random outputs with many segments.

Hugging Face's panoptic segmentation differs from Mask2Former's. The outputs here are chosen so that
the differences do not matter:

* It compares areas of masks weighted by the class probability. Here mask probabilities are far from
  0.5, and class probabilities are high.
* A segment has all pixels of its query, inside its mask or not (as in MaskFormer). Here every pixel
  is inside some query's mask.
* A query that is fused with an earlier segment is listed again, and the next segment gets a number
  that is already used. Here these queries come last, none before them is dropped, and the first
  entry of a number counts.
* It returns -1 if no query is left. Here one always is.

In semantic and instance segmentation it resizes masks to 384 x 384 for images of any size, where
Mask2Former resizes them to the image's size. Here the two are equal.
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from transformers.models.mask2former.image_processing_mask2former import Mask2FormerImageProcessor
from transformers.models.maskformer.image_processing_maskformer import MaskFormerImageProcessor

from ddep.modeling.postprocessing import (
    instance_inference,
    panoptic_inference,
    semantic_inference,
)

SIDE = 384
NUM_CLASSES = 6
THINGS = (0, 2, 4)
# One query each; the last three belong to earlier segments of stuff.
CLASSES = [0, 1, 2, 0, 3, 4, 5, 2, 0, NUM_CLASSES, 1, 3, 1]
FIRST_STUFF = [1, 4, 6]


def outputs(mask_cls: Tensor, mask_pred: Tensor) -> SimpleNamespace:
    return SimpleNamespace(
        class_queries_logits=mask_cls[None], masks_queries_logits=mask_pred[None]
    )


def blobs(number: int, generator: torch.Generator, side: int = SIDE) -> Tensor:
    """(number, side, side) smooth random maps of values around 0."""
    coarse = torch.randn(1, number, 6, 6, generator=generator)
    return F.interpolate(coarse, size=(side, side), mode="bicubic")[0]


def panoptic_outputs(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Class and mask logits as described at the top of the file."""
    queries = len(CLASSES)
    scores = 0.85 + 0.14 * torch.rand(queries, generator=generator)
    scores[3] = 0.7  # less than the threshold
    probabilities = ((1 - scores) / NUM_CLASSES)[:, None].repeat(1, NUM_CLASSES + 1)
    probabilities[torch.arange(queries), torch.tensor(CLASSES)] = scores
    maps = blobs(queries, generator)
    maps[3] = maps[9] = -1  # no pixels, because these queries do not count
    inside = maps == maps.amax(0)  # a pixel is in one query's mask, and ...
    others = [query for query in range(queries) if query not in FIRST_STUFF]
    alone = inside[FIRST_STUFF].any(0)
    inside[others] |= (maps[others] > 1.2) & ~alone  # ... here and there in several, which lose it
    strength = 2 + 3 * torch.rand(inside.shape, generator=generator)
    return probabilities.log(), torch.where(inside, strength, -strength)


@pytest.mark.parametrize("overlap", [0.0, 0.6, 0.8])
@pytest.mark.parametrize(
    ("processor", "mask_threshold"),
    [(Mask2FormerImageProcessor, 0.5), (MaskFormerImageProcessor, 0.0)],
)
def test_panoptic_segments_and_scores(
    processor: type[Any], mask_threshold: float, overlap: float
) -> None:
    generator = torch.Generator().manual_seed(0)
    dropped = fused = 0
    for _ in range(5):
        mask_cls, mask_pred = panoptic_outputs(generator)
        segmentation, info = panoptic_inference(
            mask_cls,
            mask_pred,
            thing_ids=THINGS,
            object_mask_threshold=0.8,
            overlap_threshold=overlap,
            mask_threshold=mask_threshold,
        )
        [reference] = processor().post_process_panoptic_segmentation(
            outputs(mask_cls, mask_pred),
            threshold=0.8,
            overlap_mask_area_threshold=overlap,
            label_ids_to_fuse={label for label in range(NUM_CLASSES) if label not in THINGS},
        )
        assert torch.equal(segmentation, reference["segmentation"])
        expected: dict[int, dict[str, Any]] = {}
        for segment in reference["segments_info"]:
            expected.setdefault(segment["id"], segment)
        assert [s["id"] for s in info] == list(expected)
        for segment, other in zip(info, expected.values(), strict=True):
            assert segment["category_id"] == other["label_id"]
            assert segment["isthing"] is not other["was_fused"]
            assert round(segment["score"], 6) == other["score"]
        dropped += len(CLASSES) - 2 - len(reference["segments_info"])
        fused += len(reference["segments_info"]) - len(info)
    assert fused  # otherwise the comparison would mean little
    assert bool(dropped) == (overlap > 0)


@pytest.mark.parametrize("processor", [Mask2FormerImageProcessor, MaskFormerImageProcessor])
@pytest.mark.parametrize("size", [(384, 384), (300, 412)])
def test_semantic_maps(processor: type[Any], size: tuple[int, int]) -> None:
    generator = torch.Generator().manual_seed(1)
    mask_cls = 2 * torch.randn(10, NUM_CLASSES + 1, generator=generator)
    # MaskFormer's processor takes masks of the image's size, Mask2Former's resizes them to it.
    side = SIDE // 4 if processor is Mask2FormerImageProcessor else SIDE
    mask_pred = 4 * blobs(10, generator, side)
    [reference] = processor().post_process_semantic_segmentation(
        outputs(mask_cls, mask_pred), target_sizes=[size], return_segmentation_scores=True
    )
    whole = F.interpolate(mask_pred[None], size=(SIDE, SIDE), mode="bilinear")[0]
    scores = semantic_inference(mask_cls, whole)
    scores = F.interpolate(scores[None], size=size, mode="bilinear")[0]
    torch.testing.assert_close(scores, reference.segmentation_scores, rtol=0, atol=1e-6)
    assert torch.equal(scores.argmax(0), reference.segmentation)


@pytest.mark.parametrize("processor", [Mask2FormerImageProcessor, MaskFormerImageProcessor])
def test_instances(processor: type[Any]) -> None:
    generator = torch.Generator().manual_seed(2)
    mask_cls = 3 * torch.randn(12, NUM_CLASSES + 1, generator=generator)
    mask_pred = 4 * blobs(12, generator)
    instances = instance_inference(mask_cls, mask_pred, max_detections=12)
    [reference] = processor().post_process_instance_segmentation(
        outputs(mask_cls, mask_pred), threshold=0.5, return_binary_maps=True
    )
    instances = instances[instances.scores >= 0.5]
    assert 3 < len(instances) < 12
    info = reference["segments_info"]
    found = sorted(
        zip(instances.scores.tolist(), instances.pred_classes.tolist(), range(12), strict=False)
    )
    expected = sorted((s["score"], s["label_id"], index) for index, s in enumerate(info))
    for (score, label, one), (other_score, other_label, other) in zip(found, expected, strict=True):
        assert score == pytest.approx(other_score, abs=2e-6)
        assert label == other_label
        assert torch.equal(instances.pred_masks[one], reference["segmentation"][other].bool())
