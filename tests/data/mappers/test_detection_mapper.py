"""Samples for detectors, against detectron2's own mapper and against what the image shows."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.config import CfgNode
from detectron2.data import DatasetMapper
from detectron2.structures import BitMasks, BoxMode, Instances, PolygonMasks
from PIL import Image
from pycocotools import mask as coco_mask

from ddep.data.mappers import build_mapper
from ddep.errors import UserError

HEIGHT, WIDTH = 48, 70
# x0 y0 x1 y1; each has its own grey value in the image.
BOXES = [(5, 6, 25, 30), (30, 2, 55, 20), (32, 24, 44, 38), (50, 25, 58, 39)]
CROWD = 2


def triangle(box: tuple[int, ...]) -> list[list[float]]:
    x0, y0, x1, y1 = box
    return [[float(x) for x in (x0, y0, x1, y1, x0, y1)]]


def run_lengths(box: tuple[int, ...]) -> dict[str, Any]:
    x0, y0, x1, y1 = box
    mask = np.zeros((HEIGHT, WIDTH), np.uint8, order="F")
    mask[y0:y1, x0:x1] = 1
    return coco_mask.encode(mask)


FORMS = {"polygon": triangle, "rle": run_lengths}


def make_record(folder: Path, form: str) -> dict[str, Any]:
    pixels = np.zeros((HEIGHT, WIDTH), np.uint8)
    annotations = []
    for index, (x0, y0, x1, y1) in enumerate(BOXES):
        pixels[y0:y1, x0:x1] = 50 * (index + 1)
        annotations.append(
            {
                # detectron2 truncates moved boxes to whole numbers if these are whole numbers.
                "bbox": [float(x0), float(y0), float(x1 - x0), float(y1 - y0)],
                "bbox_mode": BoxMode.XYWH_ABS,
                "category_id": index % 3,
                "iscrowd": int(index == CROWD),
                "segmentation": FORMS[form](BOXES[index]),
            }
        )
    path = folder / "image.png"
    Image.fromarray(pixels).save(path)
    return {
        "file_name": str(path),
        "height": HEIGHT,
        "width": WIDTH,
        "image_id": 7,
        "annotations": annotations,
    }


@pytest.fixture
def detection(config: Callable[..., CfgNode]) -> Callable[..., CfgNode]:
    def make(*overrides: object) -> CfgNode:
        keys = {
            "MODEL.MASK_ON": True,
            "MODEL.ROI_HEADS.NUM_CLASSES": 3,
            "INPUT.MASK_FORMAT": "bitmask",
            "INPUT.MIN_SIZE_TRAIN": (30, 48, 61),
            "INPUT.DATASET_MAPPER_NAME": "detection",
        }
        return config(*(item for pair in keys.items() for item in pair), *overrides)

    return make


def assert_same(found: Instances, expected: Instances) -> None:
    assert found.image_size == expected.image_size
    assert found.get_fields().keys() == expected.get_fields().keys()
    assert torch.equal(found.gt_classes, expected.gt_classes)
    torch.testing.assert_close(found.gt_boxes.tensor, expected.gt_boxes.tensor)
    if not expected.has("gt_masks"):
        return
    assert type(found.gt_masks) is type(expected.gt_masks)
    if isinstance(found.gt_masks, BitMasks):
        assert torch.equal(found.gt_masks.tensor, expected.gt_masks.tensor)
        return
    for ours, theirs in zip(found.gt_masks.polygons, expected.gt_masks.polygons, strict=True):
        np.testing.assert_allclose(ours, theirs)


@pytest.mark.parametrize(
    ("form", "mask_on", "mask_format"),
    [
        ("polygon", True, "polygon"),
        ("polygon", True, "bitmask"),
        ("rle", True, "bitmask"),
        ("rle", False, "polygon"),
    ],
)
def test_detectron2s_mapper_agrees(
    form: str, mask_on: bool, mask_format: str, detection: Callable[..., CfgNode], tmp_path: Path
) -> None:
    cfg = detection("MODEL.MASK_ON", mask_on, "INPUT.MASK_FORMAT", mask_format)
    ours, theirs = build_mapper(cfg, is_train=True), DatasetMapper(cfg, is_train=True)
    record = make_record(tmp_path, form)
    before = copy.deepcopy(record)
    for seed in range(8):
        samples = []
        for mapper in (ours, theirs):
            np.random.seed(seed)
            samples.append(mapper(record))
        assert record == before
        assert torch.equal(samples[0]["image"], samples[1]["image"])
        assert len(samples[0]["instances"]) == 3
        assert_same(samples[0]["instances"], samples[1]["instances"])
    without = samples[0].keys() - {"instances"}
    assert without == {"image", "file_name", "image_id", "height", "width"}


CROPPING = ("INPUT.MIN_SIZE_TRAIN", (HEIGHT,), "INPUT.CROP.ENABLED", True)
CROPPING += ("INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", (23, 31))


def test_boxes_after_a_crop_are_tight(detection: Callable[..., CfgNode], tmp_path: Path) -> None:
    mapper = build_mapper(detection(*CROPPING), is_train=True)
    record = make_record(tmp_path, "rle")
    numbers = set()
    for seed in range(20):
        np.random.seed(seed)
        sample = mapper(record)
        instances = sample["instances"]
        # Each object has its own colour in the image.
        seen = [sample["image"][0] == 50 * (i + 1) for i in range(len(BOXES)) if i != CROWD]
        seen = [mask for mask in seen if mask.any()]
        numbers.add(len(seen))
        assert len(instances) == len(seen)
        for box, mask, shown in zip(
            instances.gt_boxes, instances.gt_masks.tensor, seen, strict=True
        ):
            assert torch.equal(mask, shown)
            ys, xs = shown.nonzero().T
            assert box.tolist() == [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]
    assert len(numbers) > 1


def test_polygons_after_a_crop_have_the_boxes_of_bitmaps(
    detection: Callable[..., CfgNode], tmp_path: Path
) -> None:
    record = make_record(tmp_path, "polygon")
    for seed in range(20):
        found = []
        for mask_format in ("polygon", "bitmask"):
            cfg = detection(*CROPPING, "INPUT.MASK_FORMAT", mask_format)
            np.random.seed(seed)
            found.append(build_mapper(cfg, is_train=True)(record)["instances"])
        polygons, bitmaps = found
        assert isinstance(polygons.gt_masks, PolygonMasks)
        assert torch.equal(polygons.gt_boxes.tensor, bitmaps.gt_boxes.tensor)
        # What detectron2 trains masks with: the same pixels, but for those that an edge cuts.
        targets = [x.gt_masks.crop_and_resize(x.gt_boxes.tensor, 28).float() for x in found]
        if len(polygons):
            assert (targets[0] - targets[1]).abs().mean() < 0.15


@pytest.mark.parametrize("mask_on", [False, True])
def test_detrs_crops_clip_boxes(
    mask_on: bool, detection: Callable[..., CfgNode], tmp_path: Path
) -> None:
    """Masks are triangles, around which tight boxes would be smaller. Colours are places."""
    cfg = detection(
        *("INPUT.DATASET_MAPPER_NAME", "detr_detection", "MODEL.DETR.NUM_CLASSES", 3),
        *("INPUT.MASK_FORMAT", "polygon", "MODEL.MASK_ON", mask_on, "INPUT.CROP.ENABLED", True),
        *("INPUT.CROP.TYPE", "absolute_range", "INPUT.CROP.SIZE", (300, 500)),
        *("INPUT.FORMAT", "RGB"),
    )
    mapper = build_mapper(cfg, is_train=True)
    record = make_record(tmp_path, "polygon")
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    places = np.stack([3 * columns, 5 * rows, 0 * rows], axis=-1).astype(np.uint8)
    Image.fromarray(places).save(record["file_name"])
    boxes = np.array([BOXES[i] for i in range(len(BOXES)) if i != CROWD], dtype=float)
    is_cut = set()
    for seed in range(20):
        np.random.seed(seed)
        sample = mapper(record)
        instances = sample["instances"]
        assert instances.has("gt_masks") == mask_on
        expected = boxes.copy()
        for axis, factor in ((0, 3), (1, 5)):
            colours = sample["image"][axis].float().mean(dim=axis).numpy() / factor
            slope, start = np.polyfit(np.arange(len(colours)), colours, 1)
            moved = (boxes[:, axis::2] - 0.5 - start) / slope + 0.5
            expected[:, axis::2] = np.sort(moved, axis=1).clip(0, len(colours))
        sides = expected[:, 2:] - expected[:, :2]
        is_cut.add(bool((expected.min() == 0) or len(boxes) > (sides > 1).all(1).sum()))
        expected = expected[(sides > 1.5).all(1)]
        found = instances.gt_boxes.tensor.numpy()
        found = found[(found[:, 2:] - found[:, :2] > 1.5).all(1)]
        np.testing.assert_allclose(found, expected, atol=1.5)
    assert is_cut == {True, False}


def test_without_objects(detection: Callable[..., CfgNode], tmp_path: Path) -> None:
    record = make_record(tmp_path, "rle") | {"annotations": []}
    instances = build_mapper(detection(), is_train=True)(record)["instances"]
    assert len(instances) == 0
    assert instances.gt_boxes.tensor.shape == (0, 4)
    assert instances.gt_masks.tensor.shape == (0, *instances.image_size)


def test_no_labels_when_testing(detection: Callable[..., CfgNode], tmp_path: Path) -> None:
    sample = build_mapper(detection(), is_train=False)(make_record(tmp_path, "rle"))
    assert set(sample) == {"image", "file_name", "image_id", "height", "width"}


def broken(record: dict[str, Any], **keys: Any) -> dict[str, Any]:
    record = copy.deepcopy(record)
    for key, value in keys.items():
        if value is None:
            del record["annotations"][1][key]
        else:
            record["annotations"][1][key] = value
    return record


def test_unusable_annotations(detection: Callable[..., CfgNode], tmp_path: Path) -> None:
    record = make_record(tmp_path, "rle")
    mapper = build_mapper(detection(), is_train=True)
    with pytest.raises(UserError, match=r"image\.png has no box \(KeyError: 'bbox'\); expected"):
        mapper(broken(record, bbox=None))
    with pytest.raises(UserError, match=r"has classes 3; .*set MODEL\.ROI_HEADS\.NUM_CLASSES"):
        mapper(broken(record, category_id=3))
    with pytest.raises(UserError, match="cannot be turned into a mask: its segmentation is a None"):
        mapper(broken(record, segmentation=None))
    polygons = build_mapper(detection("INPUT.MASK_FORMAT", "polygon"), is_train=True)
    with pytest.raises(UserError, match=r"image\.png is run lengths; set the key to bitmask"):
        polygons(record)
    boxes = build_mapper(detection("MODEL.MASK_ON", False), is_train=True)
    assert len(boxes(broken(record, segmentation=None))["instances"]) == 3
    with pytest.raises(UserError, match=r"INPUT\.MASK_FORMAT is 'rle'; expected polygon or bit"):
        build_mapper(detection("INPUT.MASK_FORMAT", "rle"), is_train=True)
