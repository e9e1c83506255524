"""Small models in float64 and batches for them, for comparing gradients."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any
from unittest import mock

import torch
from detectron2.config import CfgNode
from detectron2.modeling import build_model
from detectron2.structures import BitMasks, Boxes
from torch import Tensor, nn

from ddep.modeling.mask_costs import PointMaskCosts
from ddep.modeling.mask_losses import PointMaskLosses
from ddep.noise import add_noise
from tests.modeling.meta_arch.small_mask_former import CLASSES as NUMBER_OF_CLASSES
from tests.modeling.meta_arch.small_mask_former import (
    annotated,
    annotated_clip,
    annotated_pair,
    tiny_config,
    tiny_track_config,
    tiny_video_config,
)

# All are padded to 64x64 in any batch.
SIZES = [(64, 64), (40, 64), (64, 50), (33, 37), (64, 64), (64, 34), (50, 50), (36, 64)]
# Classes of the objects in each image: one image has more than the six queries, three have none.
CLASSES = [[0, 1, 2], [], [2], [0, 1, 1, 2, 0, 0, 1, 2], [], [], [1, 2], [1]]

KINDS = [
    {"pretrain": True, "TARGET": target, "LOSS": loss, "MULTI_SCALE": multi_scale}
    for target, loss, multi_scale in [
        ("noise", "l2", False),
        ("noise", "huber", True),
        ("image", "l1", True),
    ]
]
KINDS += [{"pretrain": False, "MULTI_LABEL": multi_label} for multi_label in (False, True)]
DETR = {"pretrain": False, "QUERIES": 6}
DETR_MASKS = {**DETR, "MASKS": True}
KINDS += [DETR, DETR_MASKS]
KINDS += [{"pretrain": False, "FRAMES": 2}, {"pretrain": False, "TRACKS": "track queries"}]
KINDS += [{"pretrain": False, "MASK_LOSS": mask_loss} for mask_loss in ("points", "dense")]
# A model without normalisers: its losses are means over the images that it is called with.
PER_PIXEL: dict[str, Any] = {"pretrain": False, "HEAD": "PerPixelBaselinePlusHead"}


def config_of(kind: dict[str, Any], **ddep: Any) -> CfgNode:
    """The tiny model's config, with ``ddep`` in MODEL.DDEP."""
    make_config = {"FRAMES": tiny_video_config, "TRACKS": tiny_track_config}
    cfg = next((make_config[key] for key in kind if key in make_config), tiny_config)()
    if "MULTI_LABEL" in kind:
        cfg.MODEL.META_ARCHITECTURE = "ImageClassifier"
        cfg.MODEL.CLASSIFIER.NUM_CLASSES = 3
        cfg.MODEL.CLASSIFIER.MULTI_LABEL = kind["MULTI_LABEL"]
        return cfg
    if "QUERIES" in kind:
        cfg.MODEL.MASK_ON = "MASKS" in kind
        return _detr_config(cfg, kind["QUERIES"])
    cfg.MODEL.MASK_FORMER.SIZE_DIVISIBILITY = 64
    if kind["pretrain"]:
        cfg.MODEL.META_ARCHITECTURE = "DenoisingPretrainer"
        cfg.MODEL.DDEP.FREEZE_BACKBONE = False
    if "HEAD" in kind:
        cfg.MODEL.META_ARCHITECTURE = "SemanticSegmentor"
        cfg.MODEL.SEM_SEG_HEAD.NAME = kind["HEAD"]
        cfg.MODEL.MASK_FORMER.TRANSFORMER_IN_FEATURE = "res5"
        cfg.MODEL.MASK_FORMER.NUM_OBJECT_QUERIES = cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES
    for key, value in {**kind, **ddep}.items():
        if key not in ("pretrain", "HEAD", *make_config):
            cfg.MODEL.DDEP[key] = value
    return cfg


def _detr_config(cfg: CfgNode, queries: int) -> CfgNode:
    detr = cfg.MODEL.DETR
    cfg.MODEL.META_ARCHITECTURE = "Detr"
    detr.NUM_CLASSES, detr.NUM_OBJECT_QUERIES = NUMBER_OF_CLASSES, queries
    detr.HIDDEN_DIM, detr.NHEADS, detr.DIM_FEEDFORWARD, detr.DROPOUT = 32, 8, 64, 0.0
    detr.ENC_LAYERS, detr.DEC_LAYERS = 1, 3
    return cfg


def model_and_batch(
    kind: dict[str, Any], pixel_decoder: str = "MSDeformAttnPixelDecoder"
) -> tuple[nn.Module, list[dict[str, Any]]]:
    """One of ``KINDS`` or ``PER_PIXEL``, always with the same weights, and eight images for it."""
    cfg = config_of(kind)
    cfg.MODEL.SEM_SEG_HEAD.PIXEL_DECODER_NAME = pixel_decoder
    torch.manual_seed(0)
    model = build_model(cfg).double()
    if kind["pretrain"]:
        return model, [_noisy(*size, seed) for seed, size in enumerate(SIZES)]
    if "MULTI_LABEL" in kind:
        return model, [
            _classified(*size, classes if kind["MULTI_LABEL"] else [seed % 3], seed)
            for seed, (size, classes) in enumerate(zip(SIZES, CLASSES, strict=True))
        ]
    if "HEAD" in kind:
        return model, [_labelled(seed) for seed in range(len(SIZES))]
    model.criterion.float()  # it computes losses in float32 for predictions of any dtype
    if "QUERIES" in kind:
        return model, [
            _boxed(*size, classes, seed)
            for seed, (size, classes) in enumerate(zip(SIZES, CLASSES, strict=True))
        ]
    sample = partial(annotated_clip, kind["FRAMES"]) if "FRAMES" in kind else annotated
    sample = annotated_pair if "TRACKS" in kind else sample
    return model, [
        sample(*size, classes, seed)
        for seed, (size, classes) in enumerate(zip(SIZES, CLASSES, strict=True))
    ]


def _noisy(height: int, width: int, seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    clean, noise = torch.randn(2, 3, height, width, generator=generator).double()
    sigma = 0.3 + 0.1 * seed
    return {"image": add_noise(clean, noise, sigma, "scaled"), "noise": noise, "sigma": sigma}


def _classified(height: int, width: int, classes: list[int], seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    image = 255 * torch.rand(3, height, width, generator=generator, dtype=torch.float64)
    return {"image": image, "classes": torch.tensor(classes, dtype=torch.int64).unique()}


def _boxed(height: int, width: int, classes: list[int], seed: int) -> dict[str, Any]:
    """An image with boxes of random corners, and random masks that have nothing to do with them."""
    generator = torch.Generator().manual_seed(seed)
    sample = annotated(height, width, classes, seed)
    corners = torch.rand(len(classes), 2, 2, generator=generator).sort(dim=1).values
    boxes = (corners * torch.tensor([width, height])).flatten(1)
    sample["instances"].gt_boxes = Boxes(boxes)
    sample["instances"].gt_masks = BitMasks(sample["instances"].gt_masks)
    return sample


def _labelled(seed: int) -> dict[str, Any]:
    """An image of one size without unlabelled pixels, so that all images count the same."""
    generator = torch.Generator().manual_seed(seed)
    image = 255 * torch.rand(3, 64, 64, generator=generator).double()
    sem_seg = torch.randint(0, NUMBER_OF_CLASSES, (64, 64), generator=generator)
    return {"image": image, "sem_seg": sem_seg}


@contextmanager
def same_points() -> Iterator[None]:
    """Let every mask be sampled at the same points, independent of its batch."""
    points = torch.rand(1, 100, 2, generator=torch.Generator().manual_seed(0))

    def for_costs(_: PointMaskCosts, num_images: int, __: torch.device) -> Tensor:
        return points.expand(num_images, -1, -1)

    def for_losses(_: PointMaskLosses, __: list[Tensor], images: Tensor, ___: Tensor) -> Tensor:
        return points.expand(*images.shape, -1, -1)

    with (
        mock.patch.object(PointMaskCosts, "draw_points", for_costs),
        mock.patch.object(PointMaskLosses, "draw_points", for_losses),
    ):
        yield


def gradients(model: nn.Module) -> dict[str, Tensor]:
    """Copies of all gradients, by the parameters' names."""
    return {name: parameter.grad.clone() for name, parameter in model.named_parameters()}


def assert_same_gradients(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    """Compare to 1e-6 of each parameter's gradient, plus float64's rounding of all of them."""
    assert found.keys() == expected.keys()
    total = sum(gradient.square().sum() for gradient in expected.values()).sqrt()
    for name, gradient in expected.items():
        error = (found[name] - gradient).norm()
        assert error <= 1e-6 * gradient.norm() + 1e-13 * total, name
