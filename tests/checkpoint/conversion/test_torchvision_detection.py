"""Converted detectors, compared with torchvision's; all of their random weights matter."""

from __future__ import annotations

import re
from typing import Any

import pytest
import torch
import torchvision
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from detectron2.modeling import build_model
from detectron2.structures import Instances
from torch import nn
from torchvision.models.detection import FasterRCNN, MaskRCNN, maskrcnn_resnet50_fpn
from torchvision.models.detection._utils import overwrite_eps
from torchvision.models.detection.backbone_utils import resnet_fpn_backbone
from torchvision.ops import FrozenBatchNorm2d

from ddep.checkpoint.conversion import Conversion, convert
from ddep.checkpoint.loading import load_weights
from ddep.errors import UserError
from tests.checkpoint.conversion.converting import State, config_of, randomise, uninitialised

pytestmark = pytest.mark.slow

OUTPUTS = 4  # three classes and the background
# No multiple of 64: in torchvision the coarsest anchors are 48 pixels apart then.
HEIGHT, WIDTH = 160, 224


def build(name: str) -> nn.Module:
    """torchvision's detector with random weights, which does not resize images."""
    settings: dict[str, Any] = {"num_classes": OUTPUTS, "min_size": HEIGHT, "max_size": 10000}
    with uninitialised():
        if name == "maskrcnn_resnet50_fpn":
            model = maskrcnn_resnet50_fpn(weights=None, weights_backbone=None, **settings)
        else:
            norm = FrozenBatchNorm2d if name == "frozen" else nn.BatchNorm2d
            body = resnet_fpn_backbone(
                backbone_name="resnet18", weights=None, norm_layer=norm, trainable_layers=5
            )
            kind = FasterRCNN if name == "fasterrcnn" else MaskRCNN
            model = kind(body, **settings)
    randomise(model)
    if name == "frozen":
        # Variances so small that eps matters, and no eps, as in the published weights.
        overwrite_eps(model, 0.0)
        for key, tensor in model.state_dict().items():
            if key.endswith("running_var"):
                tensor.uniform_(1e-5, 2e-5)
            elif key.startswith("backbone.body") and tensor.ndim == 4:
                tensor.mul_(4e-3)
    with torch.no_grad():
        stages = model.backbone.body(torch.randn(1, 3, HEIGHT, WIDTH)).values()
        for stage, lateral in zip(stages, model.backbone.fpn.inner_blocks, strict=True):
            lateral[0].weight /= stage.std()
        # Scores near 0 or 1 would be so close to each other that rounding decides their order.
        model.rpn.head.cls_logits.weight *= 0.3
        model.roi_heads.box_predictor.cls_score.weight *= 2
    return model


def converted(state: State) -> tuple[nn.Module, Conversion]:
    """The model that a state dict describes, with all of its weights."""
    conversion = convert(state)
    with uninitialised():
        model = build_model(config_of({**conversion.config, "MODEL.DEVICE": "cpu"})).eval()
    conversion.fit(model.state_dict())
    assert conversion.missing == []
    assert all(name.endswith("num_batches_tracked") for name in conversion.unused)
    report = load_weights(model, dict(conversion.weights), "target.pth")
    assert not (report.new or report.unused or report.mismatched)
    return model, conversion


def close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    assert expected.std() > 1e-2
    torch.testing.assert_close(found, expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize("name", ["maskrcnn_resnet50_fpn", "maskrcnn", "fasterrcnn", "frozen"])
@torch.no_grad()
def test_outputs_are_torchvisions(name: str) -> None:
    theirs = build(name)
    ours, conversion = converted(theirs.state_dict())
    assert conversion.format_name == "torchvision-detection"
    image = torch.rand(3, HEIGHT, WIDTH)
    expected_images, _ = theirs.transform([image])
    images = ours.preprocess_image([{"image": image * 255}])
    torch.testing.assert_close(images.tensor, expected_images.tensors, atol=1e-5, rtol=0)

    expected_features = theirs.backbone(expected_images.tensors)
    features = ours.backbone(images.tensor)
    assert list(features) == ["p2", "p3", "p4", "p5", "p6"]
    for feature, expected in zip(features.values(), expected_features.values(), strict=True):
        close(feature, expected)
    expected_proposals, _ = theirs.rpn(expected_images, expected_features)
    proposals, _ = ours.proposal_generator(images, features, None)
    assert 100 < len(proposals[0]) == len(expected_proposals[0])
    # Rounding may swap proposals of equal scores.
    differences = proposals[0].proposal_boxes.tensor[:, None] - expected_proposals[0]
    distances = differences.abs().amax(2)
    assert max(distances.amin(0).max(), distances.amin(1).max()) < 1e-2

    [expected_found], _ = theirs.roi_heads(
        expected_features, expected_proposals, expected_images.image_sizes
    )
    [found] = ours.inference([{"image": image * 255}], do_postprocess=False)
    compare(found, expected_found, has_masks=name != "fasterrcnn")


def compare(found: Instances, expected: dict[str, torch.Tensor], has_masks: bool) -> None:
    assert 20 < len(found) == len(expected["scores"])
    assert torch.equal(found.pred_classes, expected["labels"] - 1)
    close(found.scores, expected["scores"])
    close(found.pred_boxes.tensor, expected["boxes"], 1e-3)
    assert found.has("pred_masks") == has_masks
    if has_masks:
        # Probabilities at 28x28 pixels: the two paste them into the image in different ways.
        close(found.pred_masks, expected["masks"], 1e-3)


def with_published_names(state: State) -> State:
    """The names of torchvision's files, which come from versions before 0.13."""
    renamed = {}
    for name, tensor in state.items():
        name = re.sub(r"^(backbone\.fpn\.\w+\.\d|rpn\.head\.conv\.0)\.0\.", r"\1.", name)
        name = name.replace("rpn.head.conv.0.", "rpn.head.conv.")
        match = re.fullmatch(r"roi_heads\.mask_head\.(\d)\.0\.(\w+)", name)
        if match:
            name = f"roi_heads.mask_head.mask_fcn{int(match[1]) + 1}.{match[2]}"
        renamed[name] = tensor
    return renamed


def test_published_names_are_the_same_weights() -> None:
    state = build("maskrcnn").state_dict()
    published = with_published_names(state)
    # torchvision itself accepts these names.
    build("maskrcnn").load_state_dict(published)
    assert sum(name not in state for name in published) == 2 * (8 + 1 + 4)
    first, second = convert(state), convert(published)
    assert first.config == second.config
    assert first.weights.keys() == second.weights.keys()
    assert all(torch.equal(first.weights[name], second.weights[name]) for name in first.weights)


def test_cocos_classes_are_the_80_that_exist() -> None:
    state = build("maskrcnn").state_dict()
    for name, tensor in state.items():
        if re.search(r"cls_score|bbox_pred|mask_fcn_logits", name) and "rpn" not in name:
            rows = 91 * len(tensor) // OUTPUTS
            values = torch.arange(rows).float()
            state[name] = values.view(-1, *[1] * (tensor.ndim - 1)).expand(-1, *tensor.shape[1:])
    conversion = convert(state)
    assert conversion.config["MODEL.ROI_HEADS.NUM_CLASSES"] == 80
    ids = [category["id"] for category in COCO_CATEGORIES if category["isthing"]]
    assert (ids[0], ids[11], ids[-1]) == (1, 13, 90)
    weights = conversion.weights
    assert weights["roi_heads.box_predictor.cls_score.bias"].tolist() == [*ids, 0]
    assert weights["roi_heads.mask_head.predictor.bias"].tolist() == ids
    deltas = weights["roi_heads.box_predictor.bbox_pred.bias"].tolist()
    assert deltas == [4 * i + side for i in ids for side in range(4)]
    assert weights["roi_heads.box_predictor.cls_score.weight"][-2].unique().tolist() == [90]


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("maskrcnn_resnet50_fpn_v2", r"\.0\.1\.weight belongs to a newer variant .* \(_v2\); exp"),
        ("fasterrcnn_mobilenet_v3_large_fpn", r"no ResNet: found backbone\.body\.0\.0\.weight, "),
    ],
)
def test_other_detectors(name: str, message: str) -> None:
    with uninitialised():
        model = torchvision.models.get_model(name, weights=None, weights_backbone=None)
    with pytest.raises(UserError, match=message):
        convert(model.state_dict())


def test_a_damaged_head() -> None:
    state = build("fasterrcnn").state_dict()
    name = "roi_heads.box_predictor.bbox_pred.bias"
    with pytest.raises(UserError, match=rf"{name} has shape \(3,\); expected a multiple of 4 "):
        convert({**state, name: state[name][:3]})
