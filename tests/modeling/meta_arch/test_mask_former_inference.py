"""MaskFormer in evaluation: the results and their sizes."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torch import Tensor

from ddep.modeling.postprocessing import instance_inference, panoptic_inference, semantic_inference
from tests.modeling.meta_arch.small_mask_former import (
    CLASSES,
    MEAN,
    QUERIES,
    STD,
    image_of_size,
    small_model,
)


def test_images_are_normalised_then_padded() -> None:
    model = small_model().eval()
    inputs = [{"image": image_of_size(37, 30, 1)}, {"image": image_of_size(20, 51, 2)}]
    model(inputs)
    assert model.backbone.images.shape == (2, 3, 48, 64)
    for batch_image, item in zip(model.backbone.images, inputs, strict=True):
        height, width = item["image"].shape[1:]
        mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
        expected = torch.zeros(3, 48, 64)
        expected[:, :height, :width] = (item["image"].float() - mean) / std
        torch.testing.assert_close(batch_image, expected)
    model = small_model(size_divisibility=-1).eval()  # the backbone's own, 8
    model(inputs[:1])
    assert model.backbone.images.shape[-2:] == (40, 32)


def resized_logits(masks: Tensor, padded: tuple[int, int], image: Tensor, size: Any) -> Tensor:
    """Resize to the output with OpenCV: up to the padded image, crop, resize."""
    height, width = image.shape[1:]
    resized = []
    for mask in masks.detach().numpy():
        full = cv2.resize(mask, padded[::-1], interpolation=cv2.INTER_LINEAR)
        full = np.ascontiguousarray(full[:height, :width])
        resized.append(cv2.resize(full, size[::-1], interpolation=cv2.INTER_LINEAR))
    return torch.from_numpy(np.stack(resized))


def test_results_have_the_output_size() -> None:
    model = small_model().eval()
    image, size = image_of_size(37, 30, 1), (75, 53)
    [result] = model([{"image": image, "height": size[0], "width": size[1]}])
    outputs = model.sem_seg_head.outputs
    mask_cls = outputs["pred_logits"][0].detach()
    mask_pred = resized_logits(outputs["pred_masks"][0], (48, 32), image, size)

    expected = semantic_inference(mask_cls, mask_pred)
    assert result["sem_seg"].shape == (CLASSES, *size)
    torch.testing.assert_close(result["sem_seg"], expected, atol=1e-4, rtol=0)

    segmentation, info = result["panoptic_seg"]
    expected_segmentation, expected_info = panoptic_inference(
        mask_cls,
        mask_pred,
        thing_ids={0, 2},
        object_mask_threshold=0.1,
        overlap_threshold=0.1,
    )
    assert len(info) > 1
    assert info == expected_info
    assert (segmentation == expected_segmentation).float().mean() > 0.999

    instances = result["instances"]
    expected = instance_inference(mask_cls, mask_pred, max_detections=7, class_ids={0, 2})
    assert instances.image_size == size
    assert 1 not in instances.pred_classes.tolist()
    assert torch.equal(instances.pred_classes, expected.pred_classes)
    torch.testing.assert_close(instances.scores, expected.scores, atol=1e-4, rtol=0)


@pytest.mark.parametrize("resize_first", [False, True])
def test_semantic_alone_resizes_after_or_before(resize_first: bool) -> None:
    model = small_model(
        panoptic_on=False, instance_on=False, resize_before_semantic=resize_first
    ).eval()
    image, size = image_of_size(37, 30, 1), (21, 90)
    [result] = model([{"image": image, "height": size[0], "width": size[1]}])
    outputs = model.sem_seg_head.outputs
    mask_cls, masks = outputs["pred_logits"][0].detach(), outputs["pred_masks"][0].detach()
    if resize_first:
        expected = semantic_inference(mask_cls, resized_logits(masks, (48, 32), image, size))
    else:
        full = resized_logits(masks, (48, 32), torch.empty(3, 48, 32), (48, 32))
        scores = semantic_inference(mask_cls, full)
        expected = resized_logits(scores, (48, 32), image, size)
    assert set(result) == {"sem_seg"}
    torch.testing.assert_close(result["sem_seg"], expected, atol=1e-4, rtol=0)


def test_instances_without_panoptic_keep_all_classes() -> None:
    model = small_model(semantic_on=False, panoptic_on=False, max_detections=100).eval()
    [result] = model([{"image": image_of_size(37, 30, 1)}])
    assert set(result) == {"instances"}
    assert result["instances"].image_size == (37, 30)
    classes = sorted(result["instances"].pred_classes.tolist())
    assert classes == sorted(list(range(CLASSES)) * QUERIES)


@pytest.mark.parametrize("size", [(37, 30), (75, 53)])
@pytest.mark.parametrize(
    "wanted", [("panoptic_seg", "instances"), ("panoptic_seg",), ("instances",)]
)
def test_results_do_not_depend_on_the_others(size: tuple[int, int], wanted: tuple[str]) -> None:
    inputs = [{"image": image_of_size(37, 30, 1), "height": size[0], "width": size[1]}]
    off = {
        "semantic_on": False,
        "panoptic_on": "panoptic_seg" in wanted,
        "instance_on": "instances" in wanted,
    }
    [some] = small_model(object_mask_threshold=0.3, max_detections=4, **off).eval()(inputs)
    on = {"panoptic_on": off["panoptic_on"]}  # which decides the classes of instances
    [result] = small_model(object_mask_threshold=0.3, max_detections=4, **on).eval()(inputs)
    assert set(some) == set(wanted)
    if "panoptic_seg" in wanted:
        assert some["panoptic_seg"][1] == result["panoptic_seg"][1] != []
        assert torch.equal(some["panoptic_seg"][0], result["panoptic_seg"][0])
    if "instances" in wanted:
        assert len(some["instances"]) > 1
        for name, value in result["instances"].get_fields().items():
            one, other = (
                item.tensor if name == "pred_boxes" else item
                for item in (value, some["instances"].get(name))
            )
            assert torch.equal(one, other)


def test_no_query_is_sure() -> None:
    model = small_model(semantic_on=False, instance_on=False, object_mask_threshold=1.0).eval()
    [result] = model([{"image": image_of_size(37, 30, 1), "height": 75, "width": 53}])
    segmentation, info = result["panoptic_seg"]
    assert info == []
    assert segmentation.shape == (75, 53)
    assert not segmentation.any()


def test_padding_does_not_change_an_image() -> None:
    model = small_model().eval()
    # Sides that 4 divides: no pixel of the feature map mixes image and padding.
    images = [{"image": image_of_size(36, 28, 1)}, {"image": image_of_size(20, 52, 2)}]
    together = model(images)
    for item, result in zip(images, together, strict=True):
        [alone] = model([item])
        # Upsampling mixes the last two columns and rows with the padding after them.
        inner = (slice(None), slice(0, -2), slice(0, -2))
        torch.testing.assert_close(alone["sem_seg"][inner], result["sem_seg"][inner])
        segments = [r["panoptic_seg"][0][inner[1:]] for r in (alone, result)]
        assert torch.equal(*segments)


def test_half_precision_outputs_give_float32_results() -> None:
    model = small_model().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        [result] = model([{"image": image_of_size(37, 30, 1)}])
    assert model.sem_seg_head.outputs["pred_masks"].dtype == torch.bfloat16
    assert result["sem_seg"].dtype == result["instances"].scores.dtype == torch.float32


def test_results_of_kept_logits_with_other_thresholds() -> None:
    """One run of the network serves any thresholds, and the model's own afterwards."""
    inputs = [{"image": image_of_size(37, 30, 1), "height": 75, "width": 53}]
    model = small_model(object_mask_threshold=0.3).eval()
    [expected] = model(inputs)
    [logits] = model.predict_logits(inputs)
    assert logits.mask_cls.shape == (QUERIES, CLASSES + 1)
    assert logits.mask_pred.shape[0] == QUERIES
    assert (logits.padded_size, logits.image_size, logits.output_size) == (
        (48, 32),
        (37, 30),
        (75, 53),
    )
    for thresholds in (
        {"object_mask_threshold": 0.6},
        {"object_mask_threshold": 1.0},
        {"overlap_threshold": 100.0},
    ):
        [other] = small_model(**{"object_mask_threshold": 0.3, **thresholds}).eval()(inputs)
        result = model.results(logits, **thresholds)
        assert result["panoptic_seg"][1] == other["panoptic_seg"][1]
        assert len(result["panoptic_seg"][1]) != len(expected["panoptic_seg"][1])
        assert torch.equal(result["panoptic_seg"][0], other["panoptic_seg"][0])
    result = model.results(logits)
    assert torch.equal(result["sem_seg"], expected["sem_seg"])
    assert torch.equal(result["panoptic_seg"][0], expected["panoptic_seg"][0])
