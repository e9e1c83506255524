"""MaskFormer in training: the inputs of the losses, and learning."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from detectron2.modeling import build_model
from torch import Tensor

from ddep.errors import UserError
from ddep.modeling.mask_costs import DenseMaskCosts, PointMaskCosts
from ddep.modeling.mask_losses import DenseMaskLosses, PointMaskLosses
from tests.modeling.meta_arch.small_mask_former import (
    CLASSES,
    PANOPTIC,
    annotated,
    image_of_size,
    small_model,
    squares,
    tiny_config,
)


def test_targets_are_padded_and_losses_weighted(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    inputs = [annotated(37, 30, [2, 0], 1), annotated(20, 51, [], 2)]
    seen: dict[str, Any] = {}

    def criterion(
        outputs: dict[str, Any],
        targets: list[dict[str, Tensor]],
        normalisers: dict[str, Tensor],
    ) -> dict[str, Tensor]:
        seen.update(outputs=outputs, targets=targets, normalisers=normalisers)
        return {name: torch.ones(()) for name in ("loss_ce", "loss_mask", "loss_dice")}

    monkeypatch.setattr(model.criterion, "forward", criterion)
    assert model(inputs) == {"loss_ce": 2.0, "loss_mask": 5.0, "loss_dice": 3.0}
    assert seen["outputs"] is model.sem_seg_head.outputs
    found = {name: count.item() for name, count in seen["normalisers"].items()}
    assert found == pytest.approx({"masks": 2, "class_weights": 2 + 6 * 0.1})
    for target, item in zip(seen["targets"], inputs, strict=True):
        assert torch.equal(target["labels"], item["instances"].gt_classes)
        masks = item["instances"].gt_masks
        expected = torch.zeros(len(masks), 48, 64, dtype=torch.bool)
        expected[:, : masks.shape[1], : masks.shape[2]] = masks
        assert torch.equal(target["masks"], expected)


def test_missing_annotation() -> None:
    inputs = [annotated(32, 32, [1], 1), {"image": image_of_size(32, 32, 2), "file_name": "b.png"}]
    with pytest.raises(UserError, match=r"b\.png: no `instances`"):
        small_model()(inputs)


@pytest.mark.parametrize("label", [-1, CLASSES])
def test_class_out_of_range(label: int) -> None:
    with pytest.raises(UserError, match=r"image1\.png: classes .* expected 0 to 2"):
        small_model()([annotated(32, 32, [1, label], 1)])


def test_masks_of_another_size_than_the_image() -> None:
    item = annotated(32, 32, [1], 1)
    item["image"] = image_of_size(32, 40, 1)
    with pytest.raises(ValueError, match=r"image1\.png: gt_masks are \(32, 32\)"):
        small_model()([item])


@pytest.mark.slow
def test_training_lowers_the_loss_and_finds_the_squares() -> None:
    torch.manual_seed(0)
    cfg = tiny_config(**PANOPTIC)
    cfg.MODEL.MASK_FORMER.TEST.PANOPTIC_ON = True
    cfg.MODEL.MASK_FORMER.TEST.OBJECT_MASK_THRESHOLD = 0.5
    cfg.MODEL.MASK_FORMER.TEST.OVERLAP_THRESHOLD = 0.5
    model = build_model(cfg)
    names = {"loss_ce", "loss_mask", "loss_dice"}
    names = {name + suffix for name in names for suffix in ("", "_0", "_1")}
    assert model.criterion.weight_dict.keys() == names
    assert model.criterion.weight_dict["loss_dice_1"] == 5.0
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3)
    item = squares()
    totals = []
    for _ in range(60):
        losses = model([item])
        assert losses.keys() == names
        total = sum(losses.values())
        optimizer.zero_grad()
        total.backward()
        optimizer.step()
        totals.append(total.item())
    assert all(parameter.grad is not None for parameter in model.parameters())
    assert np.mean(totals[-5:]) < 0.4 * np.mean(totals[:5])

    [result] = model.eval()([item])
    found = result["sem_seg"].argmax(0)
    expected = item["instances"].gt_masks.byte().argmax(0)
    assert (found == expected).float().mean() > 0.8
    assert {"id", "isthing", "category_id", "score"} == set(result["panoptic_seg"][1][0])


MASKFORMER, MASK2FORMER = ("auto", "res5"), ("auto", "multi_scale_pixel_decoder")


@pytest.mark.parametrize(
    ("decoder", "mask_loss", "dense"),
    [
        (MASKFORMER, "auto", True),
        (MASK2FORMER, "auto", False),
        (("StandardTransformerDecoder", "pixel_embedding"), "auto", True),
        (MASKFORMER, "points", False),
        (MASK2FORMER, "dense", True),
    ],
)
def test_losses_and_results_are_those_of_the_paper(
    decoder: tuple[str, str], mask_loss: str, dense: bool
) -> None:
    cfg = tiny_config(**PANOPTIC)
    mask_former = cfg.MODEL.MASK_FORMER
    mask_former.TRANSFORMER_DECODER_NAME, mask_former.TRANSFORMER_IN_FEATURE = decoder
    cfg.MODEL.DDEP.MASK_LOSS = mask_loss
    model = build_model(cfg)
    criterion = model.criterion
    kinds = (DenseMaskCosts, DenseMaskLosses) if dense else (PointMaskCosts, PointMaskLosses)
    assert isinstance(criterion.matcher.mask_costs, kinds[0])
    assert isinstance(criterion.mask_losses, kinds[1])
    assert model.mask_threshold == (0.5 if decoder == MASK2FORMER else 0.0)
    losses = model([squares()])
    assert losses.keys() == criterion.weight_dict.keys()
    assert len(losses) == 9
    sum(losses.values()).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
