"""Detr's inputs and outputs; the networks are compared with Hugging Face's in another file."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from detectron2.layers import ShapeSpec
from detectron2.modeling import BACKBONE_REGISTRY, Backbone, build_model
from detectron2.structures import Boxes, Instances
from torch import Tensor, nn

from ddep.errors import UserError
from ddep.modeling.meta_arch.detr import Detr
from tests.modeling.meta_arch.batches import DETR, config_of
from tests.modeling.meta_arch.small_mask_former import MEAN, STD, image_of_size


class Pools(Backbone):
    """Every 4x4 and every 8x8 pixels become one, so that padding does not reach the image."""

    size_divisibility = 8

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self.images = images
        return {"res2": nn.functional.avg_pool2d(images, 4), "res3": self.coarse(images)}

    @staticmethod
    def coarse(images: Tensor) -> Tensor:
        return nn.functional.avg_pool2d(images, 8)

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {"res2": ShapeSpec(3, stride=4), "res3": ShapeSpec(3, stride=8)}


@pytest.fixture
def model(monkeypatch: pytest.MonkeyPatch) -> Detr:
    monkeypatch.setitem(BACKBONE_REGISTRY._obj_map, "Pools", lambda cfg, shape: Pools())
    cfg = config_of(DETR)
    cfg.MODEL.BACKBONE.NAME = "Pools"
    torch.manual_seed(0)
    return build_model(cfg)


def sample(rows: int, columns: int, **more: Any) -> dict[str, Any]:
    return {"image": image_of_size(rows, columns, seed=rows), **more}


@torch.no_grad()
def test_padding_changes_nothing(model: Detr) -> None:
    batch = [sample(40, 64), sample(64, 24), sample(33, 50)]
    found = model.eval()(batch)
    for inputs, of_batch in zip(batch, found, strict=True):
        [alone] = model([inputs])
        for field in ("pred_boxes", "scores", "pred_classes"):
            one, other = (x["instances"].get(field) for x in (of_batch, alone))
            if isinstance(one, Boxes):
                one, other = one.tensor, other.tensor
            torch.testing.assert_close(one, other, atol=1e-3, rtol=0)


@torch.no_grad()
def test_instances_are_the_likeliest_objects_in_pixels_of_the_results(model: Detr) -> None:
    inputs = sample(40, 64, height=80, width=256)
    [results] = model.eval()([inputs])
    images = model._prepare_images([inputs])
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (MEAN, STD))
    torch.testing.assert_close(images.tensor[0], (inputs["image"] - mean) / std)
    outputs = model.predict(model.backbone(images.tensor), images)
    assert outputs["aux_outputs"] == []
    instances = results["instances"]
    assert instances.image_size == (80, 256)
    assert len(instances) == model.num_queries == 6
    logits, boxes = outputs["pred_logits"][0].double(), outputs["pred_boxes"][0].double()
    for query in range(6):
        probabilities = logits[query].exp() / logits[query].exp().sum()
        label = max(range(3), key=lambda k: probabilities[k])
        assert instances.pred_classes[query] == label
        assert instances.scores[query].item() == pytest.approx(probabilities[label].item())
        x, y, width, height = boxes[query].tolist()
        left, right = (x - width / 2) * 256, (x + width / 2) * 256
        top, bottom = (y - height / 2) * 80, (y + height / 2) * 80
        found = instances.pred_boxes.tensor[query].tolist()
        assert found == pytest.approx([left, top, right, bottom], abs=1e-4)


def test_targets_are_relative_to_the_image_without_padding(model: Detr) -> None:
    instances = Instances((40, 64))
    instances.gt_classes = torch.tensor([2])
    instances.gt_boxes = Boxes([[16.0, 10.0, 48.0, 20.0]])
    [target] = [model._targets(sample(40, 64, instances=instances))]
    assert target["labels"].tolist() == [2]
    assert target["boxes"].tolist() == [[0.5, 0.375, 0.5, 0.25]]
    assert model.normalisers([{"instances": instances}]) == {
        "boxes": 1,
        "class_weights": pytest.approx(1 + 5 * 0.1),
    }


def test_the_last_feature_is_looked_at(model: Detr) -> None:
    assert model.in_feature == "res3"
    model.backbone.coarse = lambda images: 0 * nn.functional.avg_pool2d(images, 8)
    with torch.no_grad():
        first, second = (
            model.eval()([{"image": image_of_size(40, 64, seed)}])[0]["instances"].scores
            for seed in (1, 2)
        )
    assert torch.equal(first, second)


def test_mistakes(model: Detr) -> None:
    with pytest.raises(UserError, match=r"x\.png: no `instances`, which training needs; found"):
        model.train()([sample(40, 64, file_name="x.png")])
    instances = Instances((40, 64))
    instances.gt_classes, instances.gt_boxes = torch.tensor([3]), Boxes([[1.0, 1.0, 4.0, 4.0]])
    wrong = sample(40, 64, instances=instances, file_name="x.png")
    with pytest.raises(
        UserError, match=r"x\.png: classes 3 to 3, expected 0 to 2; set MODEL\.DETR"
    ):
        model([wrong])
