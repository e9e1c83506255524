"""The classifier, compared with float64 formulas and torchvision's ResNet-50."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
import torchvision
from detectron2.config import CfgNode, get_cfg
from detectron2.layers import ShapeSpec
from detectron2.modeling import build_model
from torch import Tensor, nn

from ddep.checkpoint import Checkpointer
from ddep.checkpoint.conversion import convert
from ddep.config import add_ddep_config
from ddep.errors import UserError
from ddep.modeling.meta_arch import ImageClassifier
from ddep.modeling.meta_arch.image_classifier import average_pool
from tests.checkpoint.conversion.converting import randomise, uninitialised
from tests.modeling.meta_arch.small_mask_former import tiny_config

MEAN, STD = [120.0, 110.0, 100.0], [60.0, 50.0, 40.0]


class Pool(nn.Module):
    """A backbone whose features are means of 4x4 and of 8x8 pixels, including padding."""

    size_divisibility = 16

    def output_shape(self) -> dict[str, ShapeSpec]:
        return {f"res{s // 2}": ShapeSpec(channels=3, stride=s) for s in (4, 8)}

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {f"res{s // 2}": nn.functional.avg_pool2d(images, s) for s in (4, 8)}


def classifier(**overrides: Any) -> ImageClassifier:
    arguments: dict[str, Any] = {
        "backbone": Pool(),
        "num_classes": 4,
        "in_feature": "",
        "multi_label": False,
        "label_smoothing": 0.0,
        "pixel_mean": MEAN,
        "pixel_std": STD,
    }
    model = ImageClassifier(**arguments | overrides).double()
    nn.init.normal_(model.head.weight)
    nn.init.normal_(model.head.bias)
    return model


def batch(*classes: list[int], sizes: tuple[tuple[int, int], ...] = ()) -> list[dict[str, Any]]:
    generator = torch.Generator().manual_seed(0)
    return [
        {
            "image": torch.randint(0, 256, (3, *size), generator=generator, dtype=torch.uint8),
            "classes": torch.tensor(of_image, dtype=torch.int64),
            "file_name": f"{index}.png",
        }
        for index, (of_image, size) in enumerate(
            zip(classes, sizes or [(16, 32)] * len(classes), strict=True)
        )
    ]


def logits_of(model: ImageClassifier, inputs: dict[str, Any]) -> list[float]:
    """The head's output for an image whose sides are multiples of 8, pixel by pixel."""
    mean, std = (torch.tensor(v).double().view(3, 1, 1) for v in (MEAN, STD))
    pooled = ((inputs["image"].double() - mean) / std).mean(dim=(1, 2))
    return (model.head.weight @ pooled + model.head.bias).tolist()


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
def test_cross_entropy_is_the_formula(smoothing: float) -> None:
    model, inputs = classifier(label_smoothing=smoothing), batch([1], [0], [3])
    expected = 0.0
    for image in inputs:
        logits = logits_of(model, image)
        log_sum = math.log(sum(map(math.exp, logits)))
        for number, logit in enumerate(logits):
            target = smoothing / 4 + (1 - smoothing) * (number == image["classes"].item())
            expected -= target * (logit - log_sum) / 3
    [(name, loss)] = model(inputs).items()
    assert name == "loss_classification"
    assert loss.item() == pytest.approx(expected, rel=1e-6)


def test_binary_cross_entropy_is_the_formula() -> None:
    model, inputs = classifier(multi_label=True), batch([1, 2], [], [3])
    expected = 0.0
    for image in inputs:
        for number, logit in enumerate(logits_of(model, image)):
            sign = 1 if number in image["classes"].tolist() else -1
            expected += math.log1p(math.exp(-sign * logit)) / (3 * 4)
    assert model(inputs)["loss_classification"].item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("multi_label", [False, True])
def test_evaluation_gives_probabilities(multi_label: bool) -> None:
    model, [inputs] = classifier(multi_label=multi_label).eval(), batch([1])
    logits = logits_of(model, inputs)
    total = sum(map(math.exp, logits))
    [output] = model([{"image": inputs["image"]}])
    expected = [
        1 / (1 + math.exp(-logit)) if multi_label else math.exp(logit) / total for logit in logits
    ]
    assert output["classes"].tolist() == pytest.approx(expected, rel=1e-5)


def test_padding_does_not_influence_the_mean() -> None:
    """An image has the same output alone and in a batch with a larger one."""
    model = classifier().eval()
    inputs = batch([0], [1], [2], sizes=((16, 32), (40, 16), (8, 24)))
    together = model(inputs)
    for image, output in zip(inputs, together, strict=True):
        [alone] = model([image])
        torch.testing.assert_close(output["classes"], alone["classes"])
        logits = torch.tensor(logits_of(model, image))
        torch.testing.assert_close(output["classes"], logits.softmax(0))


def test_cells_that_cover_a_part_of_the_image_count() -> None:
    feature = torch.arange(2 * 12.0).view(2, 1, 3, 4)
    pooled = average_pool(feature, [(17, 9), (8, 32)], stride=8)
    assert pooled.tolist() == [[4.5], [13.5]]
    assert average_pool(feature, [(9, 8), (10, 1)], stride=8).tolist() == [[2.0], [14.0]]


def test_the_feature_is_the_coarsest_or_the_named_one() -> None:
    assert classifier().in_feature == "res4"
    assert classifier(in_feature="res2").stride == 4
    with pytest.raises(UserError, match=r"IN_FEATURE is 'res9'; the backbone has res2, res4"):
        classifier(in_feature="res9")


def test_impossible_labels_are_named() -> None:
    with pytest.raises(UserError, match=r"0\.png: class 4; expected 0 to 3"):
        classifier()(batch([4]))
    with pytest.raises(UserError, match=r"1\.png: 2 classes; expected one: set .*MULTI_LABEL"):
        classifier()(batch([0], [0, 1]))
    with pytest.raises(UserError, match=r"0\.png: no `classes`, which training needs"):
        classifier()([{"image": torch.zeros(3, 16, 16), "file_name": "0.png"}])
    with pytest.raises(UserError, match=r"LABEL_SMOOTHING is 0\.1, .*MULTI_LABEL to False"):
        classifier(multi_label=True, label_smoothing=0.1)
    with pytest.raises(UserError, match=r"LABEL_SMOOTHING is 1\.0; expected a number from 0"):
        classifier(label_smoothing=1.0)


def resnet_config(norm: str) -> CfgNode:
    cfg = get_cfg()
    add_ddep_config(cfg)
    cfg.merge_from_file("configs/Base-R50.yaml")
    cfg.MODEL.META_ARCHITECTURE = "ImageClassifier"
    cfg.MODEL.DEVICE = "cpu"
    cfg.MODEL.RESNETS.NORM = norm
    cfg.MODEL.CLASSIFIER.NUM_CLASSES = 10
    cfg.MODEL.PIXEL_MEAN, cfg.MODEL.PIXEL_STD = [0.0] * 3, [1.0] * 3
    return cfg


@pytest.mark.parametrize("norm", ["BN", "FrozenBN"])
@torch.no_grad()
def test_resnet_is_torchvisions(norm: str) -> None:
    with uninitialised():
        theirs = torchvision.models.resnet50(num_classes=10)
        ours = build_model(resnet_config(norm)).eval()
    state = randomise(theirs).state_dict()
    conversion = convert(state)
    conversion.weights |= {
        name.replace("fc", "head"): state[name] for name in conversion.unused[:2]
    }
    ours.load_state_dict(conversion.weights, strict=norm != "BN")  # BN also has counters
    image = torch.randn(3, 70, 90)
    [output] = ours([{"image": image}])
    torch.testing.assert_close(output["classes"], theirs(image[None])[0].softmax(0))


def test_a_denoiser_loads_a_classifiers_encoder(tmp_path: Path) -> None:
    cfg = tiny_config()
    cfg.MODEL.META_ARCHITECTURE = "ImageClassifier"
    classifier = build_model(cfg)
    torch.save({"model": classifier.state_dict()}, tmp_path / "classifier.pth")
    cfg.MODEL.META_ARCHITECTURE = "DenoisingPretrainer"
    denoiser = build_model(cfg)
    checkpointer = Checkpointer(denoiser)
    checkpointer.load(str(tmp_path / "classifier.pth"))
    loaded = dict(denoiser.backbone.named_parameters())
    assert len(loaded) > 20
    for name, parameter in classifier.backbone.named_parameters():
        assert torch.equal(parameter, loaded[name]), name
