"""MaskFormer: what goes into the model and the losses, and what comes out at which size."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import torch
from detectron2.config import CfgNode, get_cfg
from detectron2.data import MetadataCatalog
from detectron2.modeling import build_model
from detectron2.structures import Instances
from torch import Tensor, nn

from ddep.config import add_ddep_config
from ddep.errors import UserError
from ddep.modeling.criterion import SetCriterion
from ddep.modeling.mask_costs import DenseMaskCosts, PointMaskCosts
from ddep.modeling.mask_losses import DenseMaskLosses, PointMaskLosses
from ddep.modeling.matcher import HungarianMatcher
from ddep.modeling.meta_arch import MaskFormer
from ddep.modeling.postprocessing import instance_inference, panoptic_inference, semantic_inference

CLASSES = 3
QUERIES = 4
MEAN, STD = [120.0, 110.0, 100.0], [60.0, 50.0, 40.0]


class Pool(nn.Module):
    """A backbone: every 4x4 pixels become one, their mean."""

    size_divisibility = 8

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        self.images = images
        return {"res2": nn.functional.avg_pool2d(images, 4)}


class PixelwiseHead(nn.Module):
    """A head whose masks depend on one pixel each, and whose classes are fixed."""

    num_classes = CLASSES

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.mask = nn.Conv2d(3, QUERIES, 1)
        self.logits = nn.Parameter(2 * torch.randn(QUERIES, CLASSES + 1))

    def forward(self, features: dict[str, Tensor]) -> dict[str, Any]:
        masks = 4 * self.mask(features["res2"])
        logits = self.logits.expand(len(masks), -1, -1)
        self.outputs = {"pred_logits": logits, "pred_masks": masks, "aux_outputs": []}
        return self.outputs


def small_model(**overrides: Any) -> MaskFormer:
    criterion = SetCriterion(
        CLASSES,
        matcher=HungarianMatcher(mask_costs=PointMaskCosts(50)),
        mask_losses=PointMaskLosses(
            num_points=50, oversample_ratio=3.0, importance_sample_ratio=0.75
        ),
        class_weight=2.0,
        mask_weight=5.0,
        dice_weight=3.0,
        no_object_weight=0.1,
        num_aux_outputs=0,
    )
    arguments = {
        "backbone": Pool(),
        "sem_seg_head": PixelwiseHead(),
        "criterion": criterion,
        "pixel_mean": MEAN,
        "pixel_std": STD,
        "size_divisibility": 16,
        "thing_ids": [0, 2],
        "semantic_on": True,
        "panoptic_on": True,
        "instance_on": True,
        "resize_before_semantic": False,
        "mask_threshold": 0.5,
        "object_mask_threshold": 0.1,
        "overlap_threshold": 0.1,
        "max_detections": 7,
    }
    return MaskFormer(**{**arguments, **overrides})


def image_of_size(height: int, width: int, seed: int) -> Tensor:
    """Smooth, so that it is not all the same after averaging; uint8."""
    generator = torch.Generator().manual_seed(seed)
    coarse = 255 * torch.rand(1, 3, 4, 4, generator=generator)
    return nn.functional.interpolate(coarse, size=(height, width), mode="bilinear")[0].byte()


def annotated(height: int, width: int, classes: list[int], seed: int) -> dict[str, Any]:
    generator = torch.Generator().manual_seed(seed)
    instances = Instances((height, width))
    instances.gt_classes = torch.tensor(classes, dtype=torch.int64)
    instances.gt_masks = torch.rand(len(classes), height, width, generator=generator) > 0.5
    image = image_of_size(height, width, seed)
    return {"image": image, "instances": instances, "file_name": f"image{seed}.png"}


def test_images_are_normalised_then_padded() -> None:
    model = small_model().eval()
    inputs = [{"image": image_of_size(37, 30, 1)}, {"image": image_of_size(20, 51, 2)}]
    model(inputs)
    assert model.backbone.images.shape == (2, 3, 48, 64)
    for batch_image, item in zip(model.backbone.images, inputs, strict=True):
        height, width = item["image"].shape[1:]
        mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
        expected = torch.zeros(3, 48, 64)
        expected[:, :height, :width] = (item["image"].float() - mean) / std
        torch.testing.assert_close(batch_image, expected)
    model = small_model(size_divisibility=-1).eval()  # the backbone's own, 8
    model(inputs[:1])
    assert model.backbone.images.shape[-2:] == (40, 32)


def test_targets_are_padded_and_losses_weighted(monkeypatch: pytest.MonkeyPatch) -> None:
    model = small_model()
    inputs = [annotated(37, 30, [2, 0], 1), annotated(20, 51, [], 2)]
    seen: dict[str, Any] = {}

    def criterion(outputs: dict[str, Any], targets: list[dict[str, Tensor]]) -> dict[str, Tensor]:
        seen.update(outputs=outputs, targets=targets)
        return {name: torch.ones(()) for name in ("loss_ce", "loss_mask", "loss_dice")}

    monkeypatch.setattr(model.criterion, "forward", criterion)
    assert model(inputs) == {"loss_ce": 2.0, "loss_mask": 5.0, "loss_dice": 3.0}
    assert seen["outputs"] is model.sem_seg_head.outputs
    for target, item in zip(seen["targets"], inputs, strict=True):
        assert torch.equal(target["labels"], item["instances"].gt_classes)
        masks = item["instances"].gt_masks
        expected = torch.zeros(len(masks), 48, 64, dtype=torch.bool)
        expected[:, : masks.shape[1], : masks.shape[2]] = masks
        assert torch.equal(target["masks"], expected)


def resized_logits(masks: Tensor, padded: tuple[int, int], image: Tensor, size: Any) -> Tensor:
    """OpenCV's way to the output size: up to the padded image, crop, resize."""
    height, width = image.shape[1:]
    resized = []
    for mask in masks.detach().numpy():
        full = cv2.resize(mask, padded[::-1], interpolation=cv2.INTER_LINEAR)
        full = np.ascontiguousarray(full[:height, :width])
        resized.append(cv2.resize(full, size[::-1], interpolation=cv2.INTER_LINEAR))
    return torch.from_numpy(np.stack(resized))


def test_results_have_the_output_size() -> None:
    model = small_model().eval()
    image, size = image_of_size(37, 30, 1), (75, 53)
    [result] = model([{"image": image, "height": size[0], "width": size[1]}])
    outputs = model.sem_seg_head.outputs
    mask_cls = outputs["pred_logits"][0].detach()
    mask_pred = resized_logits(outputs["pred_masks"][0], (48, 32), image, size)

    expected = semantic_inference(mask_cls, mask_pred)
    assert result["sem_seg"].shape == (CLASSES, *size)
    torch.testing.assert_close(result["sem_seg"], expected, atol=1e-4, rtol=0)

    segmentation, info = result["panoptic_seg"]
    expected_segmentation, expected_info = panoptic_inference(
        mask_cls,
        mask_pred,
        thing_ids={0, 2},
        object_mask_threshold=0.1,
        overlap_threshold=0.1,
    )
    assert len(info) > 1
    assert info == expected_info
    assert (segmentation == expected_segmentation).float().mean() > 0.999

    instances = result["instances"]
    expected = instance_inference(mask_cls, mask_pred, max_detections=7, class_ids={0, 2})
    assert instances.image_size == size
    assert 1 not in instances.pred_classes.tolist()
    assert torch.equal(instances.pred_classes, expected.pred_classes)
    torch.testing.assert_close(instances.scores, expected.scores, atol=1e-4, rtol=0)


@pytest.mark.parametrize("resize_first", [False, True])
def test_semantic_alone_resizes_after_or_before(resize_first: bool) -> None:
    model = small_model(
        panoptic_on=False, instance_on=False, resize_before_semantic=resize_first
    ).eval()
    image, size = image_of_size(37, 30, 1), (21, 90)
    [result] = model([{"image": image, "height": size[0], "width": size[1]}])
    outputs = model.sem_seg_head.outputs
    mask_cls, masks = outputs["pred_logits"][0].detach(), outputs["pred_masks"][0].detach()
    if resize_first:
        expected = semantic_inference(mask_cls, resized_logits(masks, (48, 32), image, size))
    else:
        full = resized_logits(masks, (48, 32), torch.empty(3, 48, 32), (48, 32))
        scores = semantic_inference(mask_cls, full)
        expected = resized_logits(scores, (48, 32), image, size)
    assert set(result) == {"sem_seg"}
    torch.testing.assert_close(result["sem_seg"], expected, atol=1e-4, rtol=0)


def test_instances_without_panoptic_keep_all_classes() -> None:
    model = small_model(semantic_on=False, panoptic_on=False, max_detections=100).eval()
    [result] = model([{"image": image_of_size(37, 30, 1)}])
    assert set(result) == {"instances"}
    assert result["instances"].image_size == (37, 30)
    classes = sorted(result["instances"].pred_classes.tolist())
    assert classes == sorted(list(range(CLASSES)) * QUERIES)


def test_padding_does_not_change_an_image() -> None:
    model = small_model().eval()
    # Sides that 4 divides: no pixel of the feature map mixes image and padding.
    images = [{"image": image_of_size(36, 28, 1)}, {"image": image_of_size(20, 52, 2)}]
    together = model(images)
    for item, result in zip(images, together, strict=True):
        [alone] = model([item])
        # Upsampling mixes the last two columns and rows with what comes behind them.
        inner = (slice(None), slice(0, -2), slice(0, -2))
        torch.testing.assert_close(alone["sem_seg"][inner], result["sem_seg"][inner])
        segments = [r["panoptic_seg"][0][inner[1:]] for r in (alone, result)]
        assert torch.equal(*segments)


def test_half_precision_outputs_give_float32_results() -> None:
    model = small_model().eval()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        [result] = model([{"image": image_of_size(37, 30, 1)}])
    assert model.sem_seg_head.outputs["pred_masks"].dtype == torch.bfloat16
    assert result["sem_seg"].dtype == result["instances"].scores.dtype == torch.float32


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


def tiny_config(**metadata: Any) -> CfgNode:
    """A model of Swin and both decoders that a CPU builds and runs in a moment."""
    cfg = get_cfg()
    add_ddep_config(cfg)
    name = f"tiny_{len(MetadataCatalog.list())}"
    MetadataCatalog.get(name).set(**metadata)
    cfg.DATASETS.TRAIN = (name,)
    model = cfg.MODEL
    model.DEVICE = "cpu"
    model.META_ARCHITECTURE = "MaskFormer"
    model.PIXEL_MEAN, model.PIXEL_STD = MEAN, STD
    model.BACKBONE.NAME = "D2SwinTransformer"
    model.SWIN.EMBED_DIM, model.SWIN.WINDOW_SIZE = 16, 4
    model.SWIN.DEPTHS, model.SWIN.NUM_HEADS = [1, 1, 1, 1], [1, 1, 2, 2]
    model.SWIN.DROP_PATH_RATE = 0.0
    head = model.SEM_SEG_HEAD
    head.NAME, head.PIXEL_DECODER_NAME = "MaskFormerHead", "MSDeformAttnPixelDecoder"
    head.IN_FEATURES = ["res2", "res3", "res4", "res5"]
    head.NUM_CLASSES, head.NORM, head.TRANSFORMER_ENC_LAYERS = CLASSES, "GN", 1
    head.CONVS_DIM = head.MASK_DIM = 32
    mask_former = model.MASK_FORMER
    mask_former.TRANSFORMER_IN_FEATURE = "multi_scale_pixel_decoder"
    mask_former.HIDDEN_DIM, mask_former.NHEADS, mask_former.DIM_FEEDFORWARD = 32, 4, 64
    mask_former.DEC_LAYERS, mask_former.NUM_OBJECT_QUERIES = 3, 6
    mask_former.TRAIN_NUM_POINTS = 256
    mask_former.CLASS_WEIGHT, mask_former.DICE_WEIGHT, mask_former.MASK_WEIGHT = 2.0, 5.0, 5.0
    mask_former.DROPOUT = 0.0
    return cfg


PANOPTIC = {
    "stuff_classes": ["background", "square", "disc"],
    "thing_classes": ["square", "disc"],
    "thing_dataset_id_to_contiguous_id": {7: 1, 9: 2},
}


def squares() -> dict[str, Any]:
    """An image of two bright squares on a dark ground, with its annotation."""
    masks = torch.zeros(3, 64, 96, dtype=torch.bool)
    masks[1, 8:32, 8:40] = True
    masks[2, 36:60, 50:90] = True
    masks[0] = ~masks.any(0)
    instances = Instances((64, 96))
    instances.gt_classes = torch.tensor([0, 1, 2])
    instances.gt_masks = masks
    colours = torch.tensor([[20, 30, 40], [250, 60, 60], [60, 60, 250]])
    image = colours[masks.byte().argmax(0)].permute(2, 0, 1).byte()
    return {"image": image, "instances": instances, "file_name": "squares.png"}


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


def test_parameter_names_and_buffers() -> None:
    keys = build_model(tiny_config()).state_dict()
    outside = {".".join(key.split(".")[:2]) for key in keys if not key.startswith("backbone.")}
    decoders = {"sem_seg_head.pixel_decoder", "sem_seg_head.predictor"}
    assert outside == {*decoders, "criterion.empty_weight"}


def test_arguments_from_the_config() -> None:
    cfg = tiny_config(**PANOPTIC)
    mask_former = cfg.MODEL.MASK_FORMER
    mask_former.DEEP_SUPERVISION = False
    mask_former.NO_OBJECT_WEIGHT = 0.3
    mask_former.SIZE_DIVISIBILITY = 64
    mask_former.TEST.PANOPTIC_ON = True
    mask_former.TEST.SEMANTIC_ON = False
    mask_former.TEST.OBJECT_MASK_THRESHOLD, mask_former.TEST.OVERLAP_THRESHOLD = 0.7, 0.6
    cfg.TEST.DETECTIONS_PER_IMAGE = 11
    model = build_model(cfg)
    assert model.criterion.weight_dict == {"loss_ce": 2.0, "loss_mask": 5.0, "loss_dice": 5.0}
    assert model.criterion.empty_weight[-1] == pytest.approx(0.3)
    assert model.criterion.mask_losses.num_points == 256
    assert model.criterion.matcher.mask_costs.num_points == 256
    matcher = model.criterion.matcher
    assert (matcher.cost_class, matcher.cost_mask, matcher.cost_dice) == (2.0, 5.0, 5.0)
    assert model.size_divisibility == 64
    assert model.thing_ids == {1, 2}
    assert (model.semantic_on, model.panoptic_on, model.instance_on) == (False, True, False)
    assert (model.object_mask_threshold, model.overlap_threshold) == (0.7, 0.6)
    assert model.max_detections == 11
    torch.testing.assert_close(model.pixel_mean.flatten(), torch.tensor(MEAN))
    torch.testing.assert_close(model.pixel_std.flatten(), torch.tensor(STD))


@pytest.mark.parametrize("in_test", [False, True])
def test_number_of_classes_against_the_data_set(in_test: bool) -> None:
    cfg = tiny_config(**PANOPTIC)
    if in_test:
        cfg.DATASETS.TRAIN, cfg.DATASETS.TEST = (), cfg.DATASETS.TRAIN
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 54
    with pytest.raises(UserError, match="NUM_CLASSES is 54; .*3 .stuff_classes. or 2 .thing") as e:
        build_model(cfg)
    assert "\n" not in str(e.value)


def test_instance_models_count_things_and_unknown_data_sets_pass() -> None:
    cfg = tiny_config(**PANOPTIC)
    cfg.MODEL.SEM_SEG_HEAD.NUM_CLASSES = 2
    assert build_model(cfg).sem_seg_head.num_classes == 2
    cfg = tiny_config()
    cfg.DATASETS.TRAIN = cfg.DATASETS.TEST = ()
    assert build_model(cfg).thing_ids == frozenset()


def test_panoptic_results_need_to_know_the_things() -> None:
    cfg = tiny_config(stuff_classes=["a", "b", "c"])
    cfg.MODEL.MASK_FORMER.TEST.PANOPTIC_ON = True
    with pytest.raises(UserError, match="does not say which classes are things"):
        build_model(cfg)


def test_no_result_asked_for() -> None:
    cfg = tiny_config()
    cfg.MODEL.MASK_FORMER.TEST.SEMANTIC_ON = False
    with pytest.raises(UserError, match="SEMANTIC_ON, PANOPTIC_ON and INSTANCE_ON are all False"):
        build_model(cfg)


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


def test_unknown_mask_loss() -> None:
    cfg = tiny_config()
    cfg.MODEL.DDEP.MASK_LOSS = "focal"
    with pytest.raises(UserError, match="MASK_LOSS is 'focal'; expected auto, points or dense"):
        build_model(cfg)
