"""Detr and Hugging Face's DetrForObjectDetection with the same random weights."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.structures import Boxes, Instances
from detectron2.utils.events import EventStorage
from torch import Tensor, nn
from torchvision.ops import box_convert
from transformers import DetrForObjectDetection
from transformers.loss.loss_for_object_detection import ForObjectDetectionLoss

from tests.huggingface_detr import NUM_CLASSES, ours_of, pixels_of, small_detr

# Sides that are no multiples of the stride: a row of cells shows few pixels of its image.
SIZES = ((75, 131), (70, 97), (33, 131))


@pytest.fixture(scope="module")
def theirs() -> DetrForObjectDetection:
    model = small_detr(DetrForObjectDetection)
    with torch.no_grad():
        # Classes that differ between queries, and boxes that do not cover the whole image.
        model.class_labels_classifier.weight *= 5
        model.class_labels_classifier.bias[-1] -= 1
        model.bbox_predictor.layers[-1].weight *= 3
    return model


@pytest.fixture(scope="module")
def ours(theirs: DetrForObjectDetection) -> nn.Module:
    return ours_of(theirs, MODEL__DETR__DEEP_SUPERVISION=True, MODEL__DETR__DROPOUT=0.0)


@pytest.fixture(scope="module")
def images() -> list[Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [torch.randint(256, (3, *size), generator=generator).float() for size in SIZES]


def labels_of(counts: tuple[int, ...]) -> list[dict[str, Tensor]]:
    """Random targets as Hugging Face takes them; boxes are cxcywh, relative to the image."""
    generator = torch.Generator().manual_seed(1)
    labels = []
    for count in counts:
        sides = 0.1 + 0.5 * torch.rand(count, 2, generator=generator)
        centres = sides / 2 + (1 - sides) * torch.rand(count, 2, generator=generator)
        classes = torch.randint(NUM_CLASSES, (count,), generator=generator)
        labels.append({"class_labels": classes, "boxes": torch.cat([centres, sides], 1)})
    return labels


def inputs_of(images: list[Tensor], labels: list[dict[str, Tensor]]) -> list[dict[str, Any]]:
    inputs = []
    for image, target in zip(images, labels, strict=True):
        height, width = image.shape[1:]
        boxes = box_convert(target["boxes"], "cxcywh", "xyxy")
        instances = Instances((height, width), gt_classes=target["class_labels"])
        instances.gt_boxes = Boxes(boxes * torch.tensor([width, height, width, height]))
        inputs.append({"image": image, "instances": instances})
    return inputs


@torch.no_grad()
@pytest.mark.parametrize("number", [1, 3])
def test_classes_and_boxes(
    theirs: DetrForObjectDetection, ours: nn.Module, images: list[Tensor], number: int
) -> None:
    images = images[:number]
    expected = theirs(**pixels_of(images))
    prepared = ours._prepare_images([{"image": image} for image in images])
    found = ours.predict(ours.backbone(prepared.tensor), prepared)
    assert expected.logits.std() > 0.3 and expected.pred_boxes.std() > 0.05
    torch.testing.assert_close(found["pred_logits"], expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["pred_boxes"], expected.pred_boxes, atol=1e-5, rtol=1e-5)
    results = ours([{"image": image, "height": 200, "width": 300} for image in images])
    for number, result in enumerate(results):
        instances = result["instances"]
        boxes = box_convert(expected.pred_boxes[number], "cxcywh", "xyxy")
        boxes = boxes * torch.tensor([300, 200, 300, 200])
        torch.testing.assert_close(instances.pred_boxes.tensor, boxes, atol=3e-3, rtol=1e-5)
        scores, classes = expected.logits[number].softmax(-1)[:, :-1].max(-1)
        torch.testing.assert_close(instances.scores, scores, atol=1e-5, rtol=1e-5)
        assert torch.equal(instances.pred_classes, classes)


@torch.no_grad()
@pytest.mark.parametrize("counts", [(3, 1, 5), (2, 0, 9), (0, 0, 0)])
def test_losses(
    theirs: DetrForObjectDetection,
    ours: nn.Module,
    images: list[Tensor],
    counts: tuple[int, ...],
) -> None:
    """Of all layers. Nine objects are more than the seven queries.

    Their own auxiliary predictions are not DETR's: with auxiliary_loss, each layer gets the queries
    of the one before it normalised.
    """
    labels = labels_of(counts)
    outputs = theirs(**pixels_of(images), output_hidden_states=True)
    hidden = [theirs.model.decoder.layernorm(h) for h in outputs.decoder_hidden_states[1:-1]]
    hidden = torch.stack([*hidden, outputs.last_hidden_state])
    logits = theirs.class_labels_classifier(hidden)
    boxes = theirs.bbox_predictor(hidden).sigmoid()
    config = theirs.config.__class__(**{**theirs.config.to_dict(), "auxiliary_loss": True})
    total, expected, _ = ForObjectDetectionLoss(
        logits[-1], labels, "cpu", boxes[-1], config, logits, boxes
    )
    ours.train()
    with EventStorage() as storage:
        found = ours(inputs_of(images, labels))
        errors = {name: value for name, (value, _) in storage.latest().items()}
    ours.eval()
    weights = {"loss_ce": 1.0, "loss_bbox": 5.0, "loss_giou": 2.0}
    assert found.keys() == {n + s for n in weights for s in ("", "_0", "_1")}
    for name, loss in found.items():
        weight = weights[name.removesuffix("_0").removesuffix("_1")]
        torch.testing.assert_close(loss, weight * expected[name], atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(sum(found.values()), total, atol=3e-5, rtol=1e-5)
    assert errors["cardinality_error"] == pytest.approx(float(expected["cardinality_error"]))


@torch.no_grad()
def test_learned_positions(images: list[Tensor]) -> None:
    theirs = small_detr(DetrForObjectDetection, position_embedding_type="learned")
    ours = ours_of(theirs)
    expected = theirs(**pixels_of(images))
    prepared = ours._prepare_images([{"image": image} for image in images])
    found = ours.predict(ours.backbone(prepared.tensor), prepared)
    torch.testing.assert_close(found["pred_logits"], expected.logits, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(found["pred_boxes"], expected.pred_boxes, atol=1e-5, rtol=1e-5)
