"""UniMatch V2 against plain loops over pixels in float64."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import get_cfg
from detectron2.structures import ImageList
from torch import Tensor

from ddep.adaptation import AdaptationBatch, Consistency
from ddep.adaptation.consistency import Box
from ddep.config import add_ddep_config
from ddep.errors import UserError
from ddep.modeling.pixel_classifier import Predictions

CLASSES, STRIDE = 3, 4
# Logits of each class are these combinations of a cell's colours and of 1.
WEIGHTS = torch.tensor(
    [[0.02, -0.01, 0.01, 0.0], [-0.02, 0.02, 0.0, 0.5], [0.0, 0.01, -0.03, 1.0]],
    dtype=torch.float64,
)


class _Classifier:
    """Classifies the mean colour of cells of 4x4 pixels; images are padded to multiples of 8."""

    def batch_images(self, images: list[Tensor]) -> ImageList:
        return ImageList.from_tensors([image.double() for image in images], 8)

    def images(self, batched_inputs: list[dict[str, Any]], key: str = "image") -> ImageList:
        return self.batch_images([inputs[key] for inputs in batched_inputs])

    def features(self, images: Tensor) -> dict[str, Tensor]:
        return {"mean": torch.nn.functional.avg_pool2d(images, STRIDE)}

    def predict(self, features: dict[str, Tensor]) -> Predictions:
        mean = features["mean"]
        logits = torch.einsum("kc,bchw->bkhw", WEIGHTS[:, :3], mean) + WEIGHTS[:, 3, None, None]
        return Predictions(None, [logits.log_softmax(1)], mean)


class _Teacher:
    """Is more sure than the student of what the student thinks."""

    def predict(self, images: Tensor) -> Predictions:
        student = _Classifier()
        prediction = student.predict(student.features(images))
        return Predictions(
            None, [(3 * prediction.log_probabilities[0]).log_softmax(1)], prediction.embeddings
        )


def make_method(**keys: Any) -> Consistency:
    cfg = get_cfg()
    add_ddep_config(cfg)
    for key, value in keys.items():
        cfg.MODEL.ADAPTATION.CONSISTENCY[key] = value
    Consistency.check(cfg)
    return Consistency(cfg, CLASSES)


def make_target(sizes: list[tuple[int, int]]) -> list[dict[str, Any]]:
    numbers = torch.Generator().manual_seed(0)

    def draw(height: int, width: int) -> Tensor:
        # Cells of one colour: which class they have depends on where they are.
        cells = torch.randint(1, 256, (3, -(-height // 4), -(-width // 4)), generator=numbers)
        return cells.repeat_interleave(4, 1).repeat_interleave(4, 2)[:, :height, :width].byte()

    return [
        {"image": draw(*size), "strong": [draw(*size), draw(*size)], "seed": seed}
        for seed, size in enumerate(sizes)
    ]


def losses_of(method: Consistency, target: list[dict[str, Any]]) -> float:
    count = torch.tensor(float(len(target)), dtype=torch.float64)
    batch = AdaptationBatch(
        classifier=_Classifier(),
        teacher=_Teacher(),
        source=[],
        target=target,
        source_images=None,
        source_predictions=None,
        source_count=count,
        target_count=count,
    )
    losses = method.losses(batch)
    assert list(losses) == ["loss_consistency"]
    return float(losses["loss_consistency"])


def log_softmax(logits: np.ndarray) -> np.ndarray:
    return logits - math.log(sum(math.exp(value) for value in logits))


def expected_loss(
    target: list[dict[str, Any]], boxes: list[list[Box]], threshold: float, channels: np.ndarray
) -> float:
    """The loss by loops over the cells of each image.

    Args:
        target: the samples.
        boxes: of each view and image.
        threshold: of the teacher's probability.
        channels: (view, image, 3), what features are multiplied by.
    """
    weights = WEIGHTS.numpy()
    padded = [8 * math.ceil(max(s["image"].shape[i] for s in target) / 8) for i in (1, 2)]

    def cell(image: np.ndarray, y: int, x: int) -> np.ndarray:
        whole = np.zeros((3, *padded))
        whole[:, : image.shape[1], : image.shape[2]] = image
        return whole[:, 4 * y : 4 * y + 4, 4 * x : 4 * x + 4].mean((1, 2))

    total = 0.0
    for view in range(2):
        for i, sample in enumerate(target):
            height, width = sample["image"].shape[1:]
            box = boxes[view][i]
            mixed = sample["strong"][view].numpy().copy()
            for y in range(box.top, box.bottom):
                for x in range(box.left, box.right):
                    mixed[:, y, x] = target[i ^ 1]["strong"][view].numpy()[:, y, x]
            errors = []
            for y in range(padded[0] // 4):
                for x in range(padded[1] // 4):
                    if not (4 * y + 2 < height and 4 * x + 2 < width):
                        continue
                    pasted = box.top <= 4 * y + 2 < box.bottom and box.left <= 4 * x + 2 < box.right
                    source = target[i ^ 1] if pasted else sample
                    weak = weights[:, :3] @ cell(source["image"].numpy(), y, x) + weights[:, 3]
                    taught = log_softmax(3 * log_softmax(weak))
                    strong = cell(mixed, y, x) * channels[view, i]
                    learned = log_softmax(weights[:, :3] @ strong + weights[:, 3])
                    sure = math.exp(taught.max()) >= threshold
                    errors.append(-learned[taught.argmax()] if sure else 0.0)
            total += sum(errors) / len(errors) / len(target) / 2
    return total


def test_without_boxes_and_dropout_strong_views_learn_the_sure_classes() -> None:
    # 14 pixels: the centre of the last cell lies on the edge, and padding does not count.
    target = make_target([(16, 24), (14, 20), (16, 24), (12, 24)])
    nothing = [[Box()] * 4] * 2
    for threshold in (0.0, 0.6, 0.95):
        method = make_method(
            CUTMIX_PROBABILITY=0.0, DROPOUT_PROBABILITY=0.0, THRESHOLD=threshold, WEIGHT=2.0
        )
        expected = 2 * expected_loss(target, nothing, threshold, np.ones((2, 4, 3)))
        assert expected > 0
        assert losses_of(method, target) == pytest.approx(expected, rel=1e-9)


def test_boxes_bring_the_partners_pixels_and_labels(monkeypatch: pytest.MonkeyPatch) -> None:
    target = make_target([(16, 24), (16, 24)])
    boxes = [[Box(0, 5, 7, 16), Box(3, 0, 16, 9)], [Box(6, 8, 16, 23), Box(0, 0, 16, 24)]]
    drawn = iter([box for view in boxes for box in view])
    monkeypatch.setattr(Consistency, "draw_box", lambda *_: next(drawn))
    method = make_method(CUTMIX_PROBABILITY=1.0, DROPOUT_PROBABILITY=0.0, THRESHOLD=0.6)
    expected = expected_loss(target, boxes, 0.6, np.ones((2, 2, 3)))
    assert losses_of(method, target) == pytest.approx(expected, rel=1e-9)
    before = expected_loss(target, [[Box()] * 2] * 2, 0.6, np.ones((2, 2, 3)))
    assert abs(before - expected) > 0.01


def test_one_view_loses_the_channels_that_the_other_doubles(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    target = make_target([(16, 24), (16, 24)])
    seen = []

    def predict(self: _Classifier, features: dict[str, Tensor]) -> Predictions:
        seen.append(features["mean"])
        return original(self, features)

    original = _Classifier.predict
    monkeypatch.setattr(_Classifier, "predict", predict)
    method = make_method(CUTMIX_PROBABILITY=0.0, DROPOUT_PROBABILITY=1.0, THRESHOLD=0.0)
    loss = losses_of(method, target)
    classifier = _Classifier()
    strong = [
        classifier.features(classifier.batch_images([s["strong"][view] for s in target]).tensor)
        for view in range(2)
    ]
    factors = np.stack(
        [
            (seen[-1].chunk(2)[view] / strong[view]["mean"]).mean((2, 3)).numpy().round(9)
            for view in range(2)
        ]
    )
    assert set(factors.flatten()) == {0.0, 2.0}
    np.testing.assert_array_equal(factors.sum(0), 2)
    expected = expected_loss(target, [[Box()] * 2] * 2, 0.0, factors)
    assert loss == pytest.approx(expected, rel=1e-9)


def test_layers_with_equal_channels_lose_the_same_ones() -> None:
    method = make_method(DROPOUT_PROBABILITY=1.0)
    ones = torch.ones(2, 64, 1, 1)
    features = {"a": ones, "b": ones, "c": torch.ones(2, 32, 1, 1)}
    dropped = method._drop_channels(features, [torch.Generator().manual_seed(1)])
    assert torch.equal(dropped["a"], dropped["b"])
    assert 16 < int((dropped["a"][0] == 0).sum()) < 48
    kept = make_method(DROPOUT_PROBABILITY=0.0)
    unchanged = kept._drop_channels(features, [torch.Generator().manual_seed(1)])
    assert torch.equal(unchanged["a"], ones)


def test_boxes_lie_in_the_image_and_have_the_areas_and_shapes_asked_for() -> None:
    method = make_method(CUTMIX_AREA=[0.1, 0.3], CUTMIX_ASPECT=[0.5, 2.0])
    generator = torch.Generator().manual_seed(0)
    boxes = np.array([method.draw_box((200, 300), generator) for _ in range(2000)])
    top, left, bottom, right = boxes.T
    assert top.min() >= 0
    assert left.min() >= 0
    assert bottom.max() <= 200
    assert right.max() <= 300
    areas = (bottom - top) * (right - left) / (200 * 300)
    assert 0.098 < areas.min() < 0.11
    assert 0.29 < areas.max() < 0.302
    assert areas.mean() == pytest.approx(0.2, abs=0.005)
    aspects = (bottom - top) / (right - left)
    assert 0.49 < aspects.min() < 0.53
    assert 1.9 < aspects.max() < 2.05


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("WEIGHT", -1.0, "CONSISTENCY.WEIGHT is -1.0; expected 0 or more"),
        ("THRESHOLD", 1.5, "CONSISTENCY.THRESHOLD is 1.5; expected a number from 0 to 1"),
        ("CUTMIX_AREA", [0.5, 2.0], "expected two numbers above 0 and up to 1"),
        ("CUTMIX_ASPECT", [2.0, 0.5], "the lower one first"),
    ],
)
def test_impossible_values_are_named(key: str, value: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        make_method(**{key: value})
