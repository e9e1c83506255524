"""MaskFormer's per-pixel baselines, compared with formulas in float64, and their errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from detectron2.modeling import SEM_SEG_HEADS_REGISTRY, build_model
from torch import Tensor, nn

from ddep.errors import UserError
from tests.huggingface_map import randomise
from tests.modeling.mask_former_config import MASKFORMER_SMALL, feature_shapes, mask_former_config

CLASSES, IGNORE = 5, 255
HEADS = ("PerPixelBaselineHead", "PerPixelBaselinePlusHead")
SETTINGS = {
    **MASKFORMER_SMALL,
    "MODEL.META_ARCHITECTURE": "SemanticSegmentor",
    "MODEL.DEVICE": "cpu",
    "MODEL.MASK_FORMER.NUM_OBJECT_QUERIES": CLASSES,
    "MODEL.SEM_SEG_HEAD.LOSS_WEIGHT": 0.5,
}


def build(name: str, **changes: Any) -> nn.Module:
    settings = {**SETTINGS, **{f"MODEL.{key.replace('__', '.')}": v for key, v in changes.items()}}
    head = SEM_SEG_HEADS_REGISTRY.get(name)(mask_former_config(settings), feature_shapes(16))
    randomise(head)
    return head


def random_features(height: int, width: int) -> dict[str, Tensor]:
    """Features of two images."""
    return {
        name: torch.randn(2, s.channels, -(-height // s.stride), -(-width // s.stride))
        for name, s in feature_shapes(16).items()
    }


def random_targets(height: int, width: int) -> Tensor:
    """Targets of two images, the first of which has few labels."""
    targets = torch.randint(0, CLASSES, (2, height, width))
    targets[0, : height - 3] = IGNORE
    return targets


def upsampled(logits: np.ndarray, factor: int) -> np.ndarray:
    """(H, W), bilinear with aligned pixel centres; the border is repeated outside."""

    def weights(length: int) -> np.ndarray:
        matrix = np.zeros((length * factor, length))
        for row, place in enumerate((np.arange(length * factor) + 0.5) / factor - 0.5):
            place = np.clip(place, 0, length - 1)
            low = int(place)
            high = min(low + 1, length - 1)
            matrix[row, low] += 1 - (place - low)
            matrix[row, high] += place - low
        return matrix

    return weights(logits.shape[0]) @ logits @ weights(logits.shape[1]).T


def cross_entropy(logits: Tensor, targets: Tensor) -> float:
    """Mean over labelled pixels of the logits (B, K, h, w) at stride 4, in float64."""
    scores = np.array(
        [[upsampled(k, 4) for k in image] for image in logits.detach().double().numpy()]
    )
    scores = scores[..., : targets.shape[1], : targets.shape[2]]
    labels = targets.numpy()
    image, row, column = np.nonzero(labels != IGNORE)
    right = scores[image, labels[image, row, column], row, column]
    return float(np.mean(np.log(np.exp(scores[image, :, row, column]).sum(1)) - right))


@pytest.mark.parametrize("size", [(64, 96), (50, 37)])
def test_baseline_is_a_linear_map_of_the_mask_features(size: tuple[int, int]) -> None:
    head = build(HEADS[0])
    features, targets = random_features(*size), random_targets(*size)
    mask_features, _, _ = head.pixel_decoder(features)
    weight, bias = head.predictor.weight.double(), head.predictor.bias.double()
    logits = torch.einsum("kc,bchw->bkhw", weight[:, :, 0, 0], mask_features.double())
    logits = logits + bias[:, None, None]
    none, losses = head(features, targets)
    assert none is None
    assert losses.keys() == {"loss_sem_seg"}
    expected = 0.5 * cross_entropy(logits, targets)
    assert losses["loss_sem_seg"].item() == pytest.approx(expected, rel=1e-5)
    result, no_losses = head.eval()(features)
    assert no_losses == {}
    for image, k in [(0, 0), (1, 3)]:
        other = upsampled(logits[image, k].detach().numpy(), 4)
        np.testing.assert_allclose(result[image, k].detach().numpy(), other, atol=1e-4, rtol=0)


@pytest.mark.parametrize("deep", [True, False])
@pytest.mark.parametrize("size", [(64, 96), (50, 37)])
def test_plus_has_a_query_for_each_class_and_a_loss_for_each_layer(
    size: tuple[int, int], deep: bool
) -> None:
    head = build(HEADS[1], MASK_FORMER__DEEP_SUPERVISION=deep)
    features, targets = random_features(*size), random_targets(*size)
    mask_features, _, _ = head.pixel_decoder(features)
    decoder = head.predictor
    queries, _ = decoder.transformer(
        decoder.input_proj(features["res5"]), decoder.query_embed.weight
    )
    layers = [
        torch.einsum("bqc,bchw->bqhw", decoder.mask_embed(q).double(), mask_features.double())
        for q in queries
    ]
    _, losses = head(features, targets)
    expected = {"loss_sem_seg": layers[-1]}
    if deep:
        expected |= {"loss_sem_seg_0": layers[0], "loss_sem_seg_1": layers[1]}
    assert list(losses) == list(expected)
    for name, logits in expected.items():
        assert losses[name].item() == pytest.approx(
            0.5 * cross_entropy(logits, targets), rel=1e-5
        ), name
    result, _ = head.eval()(features)
    other = upsampled(layers[-1][1, 2].detach().numpy(), 4)
    np.testing.assert_allclose(result[1, 2].detach().numpy(), other, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", HEADS)
def test_a_batch_without_labels_costs_nothing(name: str) -> None:
    """A mean over no pixels would be NaN, and the training step would be skipped."""
    head = build(name)
    _, losses = head(random_features(32, 32), torch.full((2, 32, 32), IGNORE))
    total = sum(losses.values())
    total.backward()
    assert total.item() == 0
    assert all(not p.grad.any() for p in head.parameters() if p.grad is not None)


@pytest.mark.parametrize("name", HEADS)
def test_every_parameter_learns(name: str) -> None:
    head = build(name)
    _, losses = head(random_features(64, 64), random_targets(64, 64))
    sum(losses.values()).backward()
    for parameter_name, parameter in head.named_parameters():
        # All queries start at zero, so the first self-attention cannot distinguish them.
        if "layers.0.self_attn.in_proj" not in parameter_name:
            assert parameter.grad.any(), parameter_name


@pytest.mark.parametrize("name", HEADS)
def test_loads_version_1_without_pixel_decoder_in_the_names(name: str) -> None:
    head = build(name)
    old = {
        f"sem_seg_head.{key.removeprefix('pixel_decoder.')}": value
        for key, value in head.state_dict().items()
    }
    model = nn.ModuleDict({"sem_seg_head": build(name)})
    model.load_state_dict(old)
    for key, value in model["sem_seg_head"].state_dict().items():
        assert torch.equal(value, head.state_dict()[key]), key


@pytest.mark.parametrize("name", HEADS)
@torch.no_grad()
def test_semantic_segmentor_gives_logits_of_the_requested_size(name: str) -> None:
    settings = {**SETTINGS, "MODEL.SEM_SEG_HEAD.NAME": name}
    model = build_model(mask_former_config(settings)).eval()
    image = {"image": torch.randint(0, 255, (3, 50, 71)), "height": 100, "width": 142}
    [output] = model([image])
    assert output["sem_seg"].shape == (CLASSES, 100, 142)
    [features] = [model.backbone((image["image"][None] - model.pixel_mean) / model.pixel_std)]
    logits = model.sem_seg_head(features)[0][:, :, :50, :71]
    expected = nn.functional.interpolate(logits, size=(100, 142), mode="bilinear")[0]
    torch.testing.assert_close(output["sem_seg"], expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"MASK_FORMER__NUM_OBJECT_QUERIES": 100},
            "NUM_OBJECT_QUERIES is 100; .* set it to 5, the value of MODEL.SEM_SEG_HEAD",
        ),
        (
            {"MASK_FORMER__TRANSFORMER_IN_FEATURE": "multi_scale_pixel_decoder"},
            "needs MaskFormer's transformer decoder: set .*IN_FEATURE to one feature",
        ),
        ({"MASK_FORMER__TRANSFORMER_IN_FEATURE": "res6"}, "IN_FEATURE is 'res6'; .*res5"),
        ({"SEM_SEG_HEAD__COMMON_STRIDE": 8}, "COMMON_STRIDE is 8, but the finest"),
    ],
)
def test_wrong_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        build(HEADS[1], **changes)
