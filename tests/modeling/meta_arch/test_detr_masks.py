"""Results and losses of Detr with a mask head; its masks are compared with Hugging Face's in
another file."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import BitMasks
from torch.nn import functional as F

from ddep.errors import UserError
from ddep.modeling.detr_postprocessing import detr_panoptic_inference
from ddep.modeling.mask_rows import Resize
from ddep.modeling.meta_arch import Detr
from ddep.modeling.meta_arch import detr as module
from tests.modeling.meta_arch.small_mask_former import (
    CLASSES,
    PANOPTIC,
    annotated,
    image_of_size,
    tiny_config,
)

# Padded to 64 x 96.
SIZES = ((60, 90), (50, 80))


def build(**detr: Any) -> Detr:
    cfg = tiny_config(**PANOPTIC)
    cfg.MODEL.META_ARCHITECTURE = "Detr"
    cfg.MODEL.MASK_ON = True
    sizes = {"NUM_CLASSES": CLASSES, "HIDDEN_DIM": 32, "DIM_FEEDFORWARD": 64, "DROPOUT": 0.5}
    for key, value in {**sizes, "ENC_LAYERS": 1, "DEC_LAYERS": 2, **detr}.items():
        cfg.MODEL.DETR[key] = value
    torch.manual_seed(0)
    model = build_model(cfg)
    with torch.no_grad():  # masks that differ
        model.mask_head.out_lay.weight.mul_(10)
        model.query_embed.weight.mul_(5)
    return model


def batch(classes: tuple[list[int], ...] = ([0, 2], [1])) -> list[dict[str, Any]]:
    inputs = []
    for seed, (size, of_image) in enumerate(zip(SIZES, classes, strict=True)):
        sample = annotated(*size, of_image, seed)
        instances = sample["instances"]
        instances.gt_masks = BitMasks(instances.gt_masks)
        instances.gt_boxes = instances.gt_masks.get_bounding_boxes()
        inputs.append(sample)
    return inputs


@torch.no_grad()
def test_instances_are_things_and_segments_come_from_all_masks(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of PANOPTIC's three classes, 1 and 2 are things."""
    model = build(PANOPTIC_ON=True, NUM_OBJECT_QUERIES=30).eval()
    # Queries of a random model are alike: their classes are drawn, most with a score above 0.85.
    drawn = torch.randn(2, 30, CLASSES + 1)
    drawn.scatter_add_(2, drawn.argmax(2, keepdim=True), torch.full((2, 30, 1), 3.0))
    model.class_embed.register_forward_hook(lambda *_: drawn)
    inputs = [
        {"image": image_of_size(*size, seed), "height": 2 * size[0], "width": size[1]}
        for seed, size in enumerate(SIZES)
    ]
    images = model._prepare_images(inputs)
    outputs = model.predict(model.backbone(images.tensor), images)
    found = model(inputs)
    kinds = set()
    for number, ((height, width), result) in enumerate(zip(SIZES, found, strict=True)):
        queries = torch.arange(30)
        masks = model.predict_masks(outputs["encoded"], torch.full_like(queries, number), queries)
        logits = outputs["pred_logits"][number]
        size = (2 * height, width)
        expected, segments = detr_panoptic_inference(
            logits, masks, [Resize((64, 96), kept=(height, width))], size, thing_ids={1, 2}
        )
        assert torch.equal(result["panoptic_seg"][0], expected)
        assert result["panoptic_seg"][1] == segments and segments
        kinds |= {segment["isthing"] for segment in segments}
        scores, classes = logits.softmax(-1)[:, :-1].max(-1)
        things = (classes > 0).nonzero()[:, 0]
        instances = result["instances"]
        assert 0 < len(things) < 30
        assert torch.equal(instances.pred_classes, classes[things])
        assert torch.equal(instances.scores, scores[things])
        resized = F.interpolate(masks[None], (64, 96), mode="bilinear", align_corners=False)
        resized = resized[..., :height, :width]
        resized = F.interpolate(resized, size, mode="bilinear", align_corners=False)[0, things]
        surely = resized.abs() > 1e-4
        assert torch.equal(instances.pred_masks[surely], resized[surely] > 0)
    assert kinds == {True, False}
    monkeypatch.setattr(module, "_QUERIES_AT_A_TIME", 7)
    for one, other in zip(model(inputs), found, strict=True):
        assert torch.equal(one["panoptic_seg"][0], other["panoptic_seg"][0])
        assert (one["instances"].pred_masks == other["instances"].pred_masks).float().mean() > 0.999


def test_a_frozen_detector_gets_no_gradients_and_drops_nothing_out() -> None:
    model = build(FROZEN_WEIGHTS="detector.pth").train()
    found = [model(batch()) for _ in range(2)]
    assert found[0].keys() == {"loss_mask", "loss_dice"}
    assert found[0] == found[1]  # without dropout
    sum(found[0].values()).backward()
    for name, parameter in model.named_parameters():
        is_mask_head = name.startswith(("bbox_attention.", "mask_head."))
        assert parameter.requires_grad == is_mask_head
        assert (parameter.grad is not None and bool(parameter.grad.any())) == is_mask_head or (
            # A softmax does not change if all keys do.
            name == "bbox_attention.k_linear.bias"
        )
    assert not model.eval().transformer.training and not model.mask_head.training


def test_images_without_objects_reach_all_weights() -> None:
    model = build().train()
    losses = model(batch(([], [])))
    assert losses["loss_mask"] == losses["loss_dice"] == 0
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_infinite_weights_make_the_mask_loss_nan() -> None:
    model = build(FROZEN_WEIGHTS="detector.pth").train()
    with torch.no_grad():
        model.class_embed.weight.fill_(torch.nan)
    assert model(batch())["loss_mask"].isnan()


def test_samples_without_masks_are_named() -> None:
    model = build().train()
    inputs = batch()
    inputs[1]["instances"].remove("gt_masks")
    with pytest.raises(UserError, match=r"image1.png: no `gt_masks`, which MODEL.MASK_ON needs"):
        model(inputs)
