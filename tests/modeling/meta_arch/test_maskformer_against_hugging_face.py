"""The first MaskFormer, from images to losses, compared with Hugging Face's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Instances
from torch import Tensor
from transformers import MaskFormerForInstanceSegmentation

from ddep.modeling.meta_arch import MaskFormer
from tests.huggingface_map import converted
from tests.huggingface_maskformer_map import maskformer, predict
from tests.modeling.mask_former_config import (
    MASKFORMER_ADE20K_R50,
    MASKFORMER_SMALL,
    mask_former_config,
)

pytestmark = pytest.mark.slow

SIZES = [(224, 224), (256, 320), (300, 412)]


def ours_with(theirs: MaskFormerForInstanceSegmentation, settings: dict[str, Any]) -> MaskFormer:
    cfg = mask_former_config({"MODEL.DEVICE": "cpu", **settings})
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    model = build_model(cfg).eval()
    model.load_state_dict(converted(theirs).weights)
    model.sem_seg_head.predictor.train()  # so that it returns all layers; there is no dropout
    return model


@pytest.fixture(scope="module")
def theirs() -> MaskFormerForInstanceSegmentation:
    return maskformer(small=True)


def compare(ours: MaskFormer, theirs: MaskFormerForInstanceSegmentation, pixels: Tensor) -> None:
    outputs = ours.sem_seg_head(ours.backbone(pixels))
    expected = predict(theirs, pixels)
    layers = [*outputs["aux_outputs"], outputs]
    for one, other in zip(layers, expected, strict=True):
        # They vary, but not so much that rounding exceeds the tolerance.
        assert 0.5 < other["pred_masks"].std() < 20
        for name in ("pred_logits", "pred_masks"):
            torch.testing.assert_close(one[name], other[name], rtol=0, atol=1e-4)
    # What Hugging Face itself returns is the last layer's.
    result = theirs(pixels)
    torch.testing.assert_close(
        outputs["pred_logits"], result.class_queries_logits, rtol=0, atol=1e-4
    )
    torch.testing.assert_close(
        outputs["pred_masks"], result.masks_queries_logits, rtol=0, atol=1e-4
    )


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_every_layer_agrees(theirs: MaskFormerForInstanceSegmentation, size: tuple[int, int]):
    compare(ours_with(theirs, MASKFORMER_SMALL), theirs, torch.randn(2, 3, *size))


@torch.no_grad()
def test_the_published_size_agrees():
    theirs = maskformer(small=False)
    compare(ours_with(theirs, MASKFORMER_ADE20K_R50), theirs, torch.randn(1, 3, 300, 412))


def batch() -> list[dict[str, Any]]:
    """Images of all sizes with 3, 0 and 12 (more than queries) targets, of different extent."""
    generator = torch.Generator().manual_seed(1)
    inputs = []
    for (height, width), count in zip(SIZES, (3, 0, 12), strict=True):
        instances = Instances((height, width))
        instances.gt_classes = torch.randint(5, (count,), generator=generator)
        noise = torch.randn(count, 1, 5, 6, generator=generator)
        smooth = torch.nn.functional.interpolate(noise, size=(height, width), mode="bicubic")
        instances.gt_masks = smooth[:, 0] > 0.3
        image = torch.randint(256, (3, height, width), dtype=torch.uint8, generator=generator)
        inputs.append({"image": image, "instances": instances})
    return inputs


@pytest.mark.parametrize(("size_divisibility", "padded"), [(32, (320, 416)), (0, (300, 412))])
def test_losses_and_pairs_of_a_padded_batch(
    theirs: MaskFormerForInstanceSegmentation,
    size_divisibility: int,
    padded: tuple[int, int],
    monkeypatch: pytest.MonkeyPatch,
):
    settings = {**MASKFORMER_SMALL, "MODEL.MASK_FORMER.SIZE_DIVISIBILITY": size_divisibility}
    model = ours_with(theirs, settings)
    model.train()
    matches = []
    match = model.criterion.matcher.__class__.__call__
    monkeypatch.setattr(
        model.criterion.matcher.__class__,
        "__call__",
        lambda *args: matches.append(match(*args)) or matches[-1],
    )
    inputs = batch()
    losses = model(inputs)
    losses = {name: loss / model.criterion.weight_dict[name] for name, loss in losses.items()}

    pixels, masks = torch.zeros(3, 3, *padded), []
    for tensor, item in zip(pixels, inputs, strict=True):
        _, height, width = item["image"].shape
        image = (item["image"] - model.pixel_mean) / model.pixel_std
        tensor[:, :height, :width] = image
        masks.append(torch.zeros(len(item["instances"]), *padded))
        masks[-1][:, :height, :width] = item["instances"].gt_masks
    labels = [item["instances"].gt_classes for item in inputs]
    layers = predict(theirs, pixels)
    *auxiliary, last = [
        {"masks_queries_logits": o["pred_masks"], "class_queries_logits": o["pred_logits"]}
        for o in layers
    ]
    expected = theirs.criterion(
        *last.values(), mask_labels=masks, class_labels=labels, auxiliary_predictions=auxiliary
    )
    expected = {name.replace("cross_entropy", "ce"): loss for name, loss in expected.items()}
    assert losses.keys() == expected.keys() == model.criterion.weight_dict.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], atol=1e-5, rtol=0)

    [matches_of_layers] = matches
    for outputs, found in zip([*auxiliary, last], matches_of_layers, strict=True):
        pairs = theirs.matcher(*outputs.values(), mask_labels=masks, class_labels=labels)
        for one, other in zip(found, pairs, strict=True):
            assert one[0].tolist() == other[0].tolist()
            assert one[1].tolist() == other[1].tolist()


def test_defaults_are_maskformers(theirs: MaskFormerForInstanceSegmentation):
    """Values that MaskFormer's configs leave to the defaults equal Hugging Face's."""
    model = ours_with(theirs, MASKFORMER_SMALL)
    for name, weight in theirs.weight_dict.items():
        assert model.criterion.weight_dict[name.replace("cross_entropy", "ce")] == weight
    matcher = model.criterion.matcher
    assert (matcher.cost_class, matcher.cost_mask, matcher.cost_dice) == (1.0, 20.0, 1.0)
    assert model.criterion.empty_weight[-1] == pytest.approx(0.1)
