"""Mask2Former, from images to losses, compared with Hugging Face's with the same weights."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from detectron2.modeling import build_model
from detectron2.structures import Instances
from torch import Tensor
from transformers import (
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    PreTrainedConfig,
    ResNetConfig,
    SwinConfig,
)

from ddep.modeling import mask_costs, mask_losses
from ddep.modeling.mask_costs import PointMaskCosts
from ddep.modeling.mask_losses import PointMaskLosses
from ddep.modeling.matcher import HungarianMatcher
from ddep.modeling.meta_arch import MaskFormer
from ddep.modeling.normalisers import average_over_processes
from ddep.ops.point_drawing_reference import CANDIDATES, REST, UNIFORM, random_points
from tests.huggingface_map import STAGES, converted, randomise_model, small_config
from tests.modeling.mask_former_config import mask_former_config

pytestmark = pytest.mark.slow

SIZES = [(224, 224), (256, 320), (300, 412)]
PADDED = (320, 416)  # what all three become in one batch

BACKBONES: dict[str, Callable[[], PreTrainedConfig]] = {
    "swin_tiny": lambda: SwinConfig(out_features=STAGES, drop_path_rate=0.0),
    "resnet50": lambda: ResNetConfig(out_features=STAGES),
}


def random_model(config: Mask2FormerConfig) -> Mask2FormerForUniversalSegmentation:
    model = Mask2FormerForUniversalSegmentation(config).eval()
    randomise_model(model)
    return model


def ours_with(theirs: Mask2FormerForUniversalSegmentation) -> MaskFormer:
    conversion = converted(theirs)
    cfg = mask_former_config({**conversion.config, "MODEL.DEVICE": "cpu"})
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    model = build_model(cfg).eval()
    conversion.fit(model.state_dict())
    model.load_state_dict(conversion.weights)
    model.sem_seg_head.predictor.train()  # so that it returns all layers
    return model


@pytest.fixture(scope="module", params=list(BACKBONES))
def theirs(request: pytest.FixtureRequest) -> Mask2FormerForUniversalSegmentation:
    """A real backbone, and a small decoder with 4 layers after the queries' own predictions."""
    return random_model(small_config(backbone_config=BACKBONES[request.param](), decoder_layers=5))


# Losses depend on the predictions alone.
ONE_BACKBONE = pytest.mark.parametrize("theirs", ["resnet50"], indirect=True)


@pytest.fixture(scope="module")
def ours(theirs: Mask2FormerForUniversalSegmentation) -> MaskFormer:
    return ours_with(theirs)


def predict(model: Mask2FormerForUniversalSegmentation, pixels: Tensor) -> list[dict[str, Tensor]]:
    """The predictions of every layer, those of the queries themselves first."""
    outputs = model(pixels, output_auxiliary_logits=True)
    return [
        *outputs.auxiliary_logits,
        {
            "masks_queries_logits": outputs.masks_queries_logits,
            "class_queries_logits": outputs.class_queries_logits,
        },
    ]


def compare(
    outputs: dict[str, Any], expected: list[dict[str, Tensor]], tolerance: float = 1e-4
) -> None:
    for one, other in zip([*outputs["aux_outputs"], outputs], expected, strict=True):
        # They vary, but not so much that rounding exceeds the tolerance.
        assert 0.3 < other["masks_queries_logits"].std() < 10
        torch.testing.assert_close(
            one["pred_logits"], other["class_queries_logits"], rtol=0, atol=tolerance
        )
        torch.testing.assert_close(
            one["pred_masks"], other["masks_queries_logits"], rtol=0, atol=tolerance
        )


@pytest.mark.parametrize("size", SIZES)
@torch.no_grad()
def test_every_layer_agrees(
    ours: MaskFormer, theirs: Mask2FormerForUniversalSegmentation, size: tuple[int, int]
) -> None:
    pixels = torch.randn(1, 3, *size)
    compare(ours.sem_seg_head(ours.backbone(pixels)), predict(theirs, pixels))


@pytest.mark.parametrize("backbone", BACKBONES)
@torch.no_grad()
def test_the_published_size_agrees(backbone: str) -> None:
    """100 queries, 256 channels, 6 and 9 layers, COCO's 133 classes.

    The comparison is in float64: among a million mask logits, some are so near 0 that rounding in
    float32 decides whether a query sees a pixel.
    """
    theirs = random_model(
        Mask2FormerConfig(backbone_config=BACKBONES[backbone](), num_labels=133)
    ).double()
    ours = ours_with(theirs.float()).double()
    pixels = torch.randn(1, 3, 224, 224, dtype=torch.float64)
    outputs = ours.sem_seg_head(ours.backbone(pixels))
    assert outputs["pred_logits"].shape == (1, 100, 134)
    compare(outputs, predict(theirs.double(), pixels), tolerance=1e-6)


def batch() -> list[dict[str, Any]]:
    """Images of all sizes with 3, 0 and 12 (more than queries) targets."""
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


def padded(
    inputs: list[dict[str, Any]], model: MaskFormer
) -> tuple[Tensor, list[Tensor], list[Tensor]]:
    """The input of Hugging Face's model: padded pixels, padded masks and classes of a batch."""
    pixels, masks = torch.zeros(len(inputs), 3, *PADDED), []
    for tensor, item in zip(pixels, inputs, strict=True):
        _, height, width = item["image"].shape
        tensor[:, :height, :width] = (item["image"] - model.pixel_mean) / model.pixel_std
        masks.append(torch.zeros(len(item["instances"]), *PADDED))
        masks[-1][:, :height, :width] = item["instances"].gt_masks
    return pixels, masks, [item["instances"].gt_classes for item in inputs]


@torch.no_grad()
def test_a_padded_batch_agrees(
    ours: MaskFormer, theirs: Mask2FormerForUniversalSegmentation
) -> None:
    inputs = batch()
    outputs: list[dict[str, Any]] = []
    hook = ours.sem_seg_head.register_forward_hook(lambda *call: outputs.append(call[-1]))
    ours(inputs)
    hook.remove()
    compare(outputs[0], predict(theirs, padded(inputs, ours)[0]))


class SamePoints:
    """Our random points, for both sides, although they visit the layers in different orders."""

    seed = torch.tensor(2)

    def __init__(self, layers: int, images: int, pairs: int, points: int) -> None:
        def draw(rows: int, count: int, stream: int) -> Tensor:
            return random_points(self.seed, rows, count, stream, torch.device("cpu"))

        random = points - int(0.75 * points)
        self.layers = layers
        # Our matching uses the same points in all layers.
        self.matching = draw(images, points, UNIFORM)
        self.candidates = draw(layers * pairs, 3 * points, CANDIDATES).unflatten(0, (layers, -1))
        self.random = draw(layers * pairs, random, REST).unflatten(0, (layers, -1))

    def theirs(self) -> Iterator[Tensor]:
        """The last layer first, and one image after the other in the matching."""
        for layer in (self.layers - 1, *range(self.layers - 1)):
            yield from self.matching[:, None]
            yield self.candidates[layer]
            yield self.random[layer]


def drawing(monkeypatch: pytest.MonkeyPatch, numbers: Iterator[Tensor]) -> None:
    """Let torch.rand return ``numbers``, which must have the requested shapes."""

    def rand(*shape: int, **_: Any) -> Tensor:
        values = next(numbers)
        assert values.shape == torch.Size(shape)
        return values

    monkeypatch.setattr(torch, "rand", rand)


@ONE_BACKBONE
def test_losses_and_pairs_agree(
    ours: MaskFormer,
    theirs: Mask2FormerForUniversalSegmentation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Same predictions and same random numbers; each side chooses its uncertain points."""
    pixels, masks, labels = padded(batch(), ours)
    with torch.no_grad():
        layers = predict(theirs, pixels)
    *auxiliary, last = layers
    points = SamePoints(len(layers), len(labels), pairs=3 + 10, points=12544)

    matches: list[Any] = []
    match = HungarianMatcher.__call__
    monkeypatch.setattr(
        HungarianMatcher, "__call__", lambda *call: matches.append(match(*call)) or matches[-1]
    )
    their_matches: list[Any] = []
    hook = theirs.criterion.matcher.register_forward_hook(
        lambda *call: their_matches.append(call[-1])
    )
    drawing(monkeypatch, points.theirs())
    expected = theirs.criterion(
        **last, mask_labels=masks, class_labels=labels, auxiliary_predictions=auxiliary
    )
    hook.remove()
    named = [
        {"pred_logits": o["class_queries_logits"], "pred_masks": o["masks_queries_logits"]}
        for o in layers
    ]
    for module in (mask_costs, mask_losses):
        monkeypatch.setattr(module, "draw_seed", lambda: SamePoints.seed)
    losses = ours.criterion(
        {**named[-1], "aux_outputs": named[:-1]},
        [{"labels": c, "masks": m.bool()} for c, m in zip(labels, masks, strict=True)],
        average_over_processes(ours.normalisers(batch()), "cpu"),
    )

    expected = {name.replace("cross_entropy", "ce"): loss for name, loss in expected.items()}
    assert losses.keys() == expected.keys()
    for name, loss in losses.items():
        torch.testing.assert_close(loss, expected[name], rtol=0, atol=1e-5)
    pairs = [*their_matches[1:], their_matches[0]]
    for found, others in zip(matches[0], pairs, strict=True):
        for one, other in zip(found, others, strict=True):
            assert one[0].tolist() == other[0].tolist()
            assert one[1].tolist() == other[1].tolist()


@ONE_BACKBONE
def test_the_weighted_sum_of_the_losses_agrees(
    ours: MaskFormer,
    theirs: Mask2FormerForUniversalSegmentation,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Both sides start from images and use their own predictions.

    The points of the losses are fixed, because rounding decides which ones are uncertain.
    """
    inputs = batch()
    pixels, masks, labels = padded(inputs, ours)
    points = SamePoints(layers=5, images=3, pairs=3 + 10, points=12544)
    of_losses = points.candidates[:, :, :12544]
    monkeypatch.setattr(PointMaskCosts, "draw_points", lambda *_: points.matching)
    monkeypatch.setattr(PointMaskLosses, "draw_points", lambda *_: of_losses)
    ours.training = True
    losses = ours(inputs)
    ours.training = False

    drawing(monkeypatch, (image[None] for _ in range(5) for image in points.matching))
    layers = iter([4, 0, 1, 2, 3])
    monkeypatch.setattr(
        theirs.criterion, "sample_points_using_uncertainty", lambda *_: of_losses[next(layers)]
    )
    with torch.no_grad():
        expected = theirs(pixels, mask_labels=masks, class_labels=labels).loss
    torch.testing.assert_close(sum(losses.values()), expected, rtol=1e-5, atol=0)
