"""Detr with a mask head and Hugging Face's DetrForSegmentation with the same random weights."""

from __future__ import annotations

import pytest
import torch
from detectron2.structures import BitMasks
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import DetrForSegmentation

from tests.huggingface_detr import QUERIES, ours_of, pixels_of, small_detr
from tests.modeling.meta_arch.test_detr_against_hugging_face import SIZES, inputs_of, labels_of

PADDED = (75, 131)


@pytest.fixture(scope="module")
def theirs() -> DetrForSegmentation:
    model = small_detr(DetrForSegmentation)
    with torch.no_grad():
        model.detr.class_labels_classifier.weight *= 5
        model.mask_head.output_conv.weight *= 3
    return model


@pytest.fixture(scope="module")
def ours(theirs: DetrForSegmentation) -> nn.Module:
    return ours_of(theirs, MODEL__DETR__DROPOUT=0.0)


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(256, (3, *size), generator=generator).float() for size in SIZES]


@torch.no_grad()
@pytest.mark.parametrize("number", [1, 3])
def test_masks(
    theirs: DetrForSegmentation, ours: nn.Module, images: list[Tensor], number: int
) -> None:
    images = images[:number]
    expected = theirs(**pixels_of(images))
    assert expected.pred_masks.std() > 0.3
    prepared = ours._prepare_images([{"image": image} for image in images])
    found = ours.predict(ours.backbone(prepared.tensor), prepared)
    torch.testing.assert_close(found["pred_logits"], expected.logits, atol=1e-5, rtol=1e-5)
    places = torch.cartesian_prod(torch.arange(number), torch.arange(QUERIES)).unbind(1)
    masks = ours.predict_masks(found["encoded"], *places).unflatten(0, (number, QUERIES))
    torch.testing.assert_close(masks, expected.pred_masks, atol=1e-5, rtol=1e-5)
    resized = F.interpolate(masks, PADDED, mode="bilinear", align_corners=False)
    results = ours([{"image": image} for image in images])
    for mask, (height, width), result in zip(resized, SIZES, results, strict=False):
        assert "panoptic_seg" not in result
        expected_masks = mask[:, :height, :width]
        surely = expected_masks.abs() > 1e-4
        assert surely.float().mean() > 0.99
        assert torch.equal(
            result["instances"].pred_masks[surely], (expected_masks.sigmoid() > 0.5)[surely]
        )


@torch.no_grad()
@pytest.mark.parametrize("counts", [(3, 1, 5), (2, 0, 9), (0, 0, 0)])
def test_losses(
    theirs: DetrForSegmentation, ours: nn.Module, images: list[Tensor], counts: tuple[int, ...]
) -> None:
    labels = labels_of(counts)
    inputs = inputs_of(images, labels)
    generator = torch.Generator().manual_seed(2)
    for target, sample in zip(labels, inputs, strict=True):
        count, (_, height, width) = len(target["boxes"]), sample["image"].shape
        noise = torch.randn(count, 1, 4, 5, generator=generator)
        if count:
            noise = F.interpolate(noise, (height, width), mode="bilinear")
        masks = noise[:, 0, :height, :width] > 0.2 if count else torch.zeros(0, height, width) > 1
        sample["instances"].gt_masks = BitMasks(masks)
        target["masks"] = masks.float()
    expected = theirs(**pixels_of(images), labels=labels)
    ours.train()
    found = ours(inputs)
    ours.eval()
    weights = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0, "loss_mask": 1, "loss_dice": 1}
    assert found.keys() == weights.keys()
    for name, loss in found.items():
        torch.testing.assert_close(
            loss, weights[name] * expected.loss_dict[name], atol=1e-5, rtol=1e-5
        )
    torch.testing.assert_close(sum(found.values()), expected.loss, atol=3e-5, rtol=1e-5)
