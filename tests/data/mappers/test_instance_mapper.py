from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.structures import BoxMode
from PIL import Image
from pycocotools import mask as coco_mask
from scipy.ndimage import binary_dilation

from ddep.data.mappers import build_mapper
from ddep.errors import UserError

HEIGHT, WIDTH = 40, 60
# x0 y0 x1 y1. Colours in the image tell them apart: 50, 100, 150, 200.
BOXES = [(5, 6, 25, 30), (30, 2, 55, 20), (32, 24, 44, 38), (50, 25, 58, 39)]


def box_mask(box) -> np.ndarray:
    x0, y0, x1, y1 = box
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[y0:y1, x0:x1] = 1
    return mask


def box_polygon(box) -> list[list[float]]:
    x0, y0, x1, y1 = box
    return [[x0, y0, x1, y0, x1, y1, x0, y1]]


def compressed(box) -> dict:
    return coco_mask.encode(np.asfortranarray(box_mask(box)))


def uncompressed(box) -> dict:
    """COCO's run lengths: of 0 and 1 in turn, down the columns."""
    pixels = box_mask(box).ravel(order="F").tolist()
    counts, value, run = [], 0, 0
    for pixel in pixels:
        if pixel != value:
            counts.append(run)
            value, run = pixel, 0
        run += 1
    return {"size": [HEIGHT, WIDTH], "counts": [*counts, run]}


FORMS = {"polygon": box_polygon, "rle": compressed, "counts": uncompressed, "bitmap": box_mask}


def annotation(box, category: int, form) -> dict:
    return {
        "bbox": list(box),
        "bbox_mode": BoxMode.XYXY_ABS,
        "category_id": category,
        "iscrowd": 0,
        "segmentation": form(box),
    }


@pytest.fixture(params=FORMS.values(), ids=FORMS.keys())
def record(request, tmp_path):
    image = np.zeros((HEIGHT, WIDTH), np.uint8)
    for number, box in enumerate(BOXES, start=1):
        image[box_mask(box) == 1] = 50 * number
    Image.fromarray(image).save(tmp_path / "image.png")
    objects = [annotation(box, i % 3, request.param) for i, box in enumerate(BOXES)]
    objects[2]["iscrowd"] = 1
    return {"file_name": str(tmp_path / "image.png"), "annotations": objects}


@pytest.fixture
def instance(config):
    def make(*overrides):
        defaults = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3, "INPUT.MIN_SIZE_TRAIN", (HEIGHT,))
        name = ("INPUT.DATASET_MAPPER_NAME", "mask_former_instance")
        return build_mapper(config(*defaults, *name, *overrides), is_train=True)

    return make


def visible(image: torch.Tensor) -> list[tuple[int, np.ndarray]]:
    """Class and mask of each visible object but crowds, by the image's colours."""
    seen = []
    for i in (0, 1, 3):
        mask = (image[0] == 50 * (i + 1)).numpy()
        if mask.any():
            seen.append((i % 3, mask))
    return seen


def test_masks(record, instance):
    sample = instance("INPUT.RANDOM_FLIP", "none")(record)
    assert set(sample) == {"image", "instances", "file_name", "height", "width"}
    instances = sample["instances"]
    assert instances.gt_classes.tolist() == [0, 1, 0]
    assert instances.gt_classes.dtype == torch.int64 and instances.gt_masks.dtype == torch.bool
    expected = np.stack([box_mask(BOXES[i]) for i in (0, 1, 3)])
    assert np.array_equal(instances.gt_masks, expected)


def test_image_and_masks_move_together(record, instance):
    mapper = instance(
        *("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", (23, 31)),
        *("INPUT.SIZE_DIVISIBILITY", 36),
    )
    np.random.seed(0)
    for _ in range(30):
        sample = mapper(record)
        expected = visible(sample["image"])
        instances = sample["instances"]
        assert instances.image_size == (36, 36) == sample["image"].shape[1:]
        assert instances.gt_classes.tolist() == [category for category, _ in expected]
        for mask, (_, exact) in zip(instances.gt_masks, expected, strict=True):
            assert np.array_equal(mask, exact)


@pytest.mark.parametrize(
    "keys",
    [
        ("INPUT.MIN_SIZE_TRAIN", (25, 57, 100)),
        ("INPUT.DATASET_MAPPER_NAME", "coco_instance_lsj", "INPUT.IMAGE_SIZE", 64),
    ],
    ids=["resized", "jittered"],
)
@pytest.mark.parametrize("form", FORMS.values(), ids=FORMS.keys())
def test_resized_masks_stay_on_their_objects(tmp_path, instance, form, keys):
    """The mask's border is where the colour is half the object's, within half an old pixel."""
    image = np.where(box_mask(BOXES[1]) == 1, 100, 0).astype(np.uint8)
    Image.fromarray(image).save(tmp_path / "image.png")
    objects = [annotation(BOXES[1], 1, form)]
    record = {"file_name": str(tmp_path / "image.png"), "annotations": objects}
    mapper = instance(*keys, "INPUT.MIN_SCALE", 0.6)
    np.random.seed(1)
    checked = 0
    for _ in range(20):
        sample = mapper(record)
        colours = sample["image"][0].numpy()
        seen = (colours >= 50) & (colours <= 100)  # 128 is padding
        if not seen.any():
            assert len(sample["instances"]) == 0
            continue
        (mask,) = sample["instances"].gt_masks.numpy()
        reach = 1 if form is box_polygon else 2
        assert not (mask & ~binary_dilation(seen, iterations=reach)).any()
        assert not (seen & ~binary_dilation(mask, iterations=reach)).any()
        checked += 1
    assert checked > 15


def test_polygon_is_drawn_at_the_new_size(tmp_path, instance):
    """A triangle, ten times as large: its edge has no steps of ten pixels."""
    Image.new("L", (12, 10)).save(tmp_path / "image.png")
    record = {
        "file_name": str(tmp_path / "image.png"),
        "annotations": [{"category_id": 0, "segmentation": [[1, 1, 9, 1, 1, 9]]}],
    }
    keys = ("INPUT.MIN_SIZE_TRAIN", (100,), "INPUT.RANDOM_FLIP", "none")
    mask = instance(*keys)(record)["instances"].gt_masks[0].numpy()
    y, x = np.mgrid[:100, :120] + 0.5
    inside = (x >= 10) & (y >= 10) & (x + y <= 100)
    assert (mask ^ inside).sum() <= 100  # a pixel on the 80 rows of the slope


def test_no_objects(tmp_path, instance):
    Image.new("L", (12, 10)).save(tmp_path / "image.png")
    crowd = {**annotation((1, 1, 5, 5), 0, box_polygon), "iscrowd": 1}
    for objects in ([], [crowd]):
        record = {"file_name": str(tmp_path / "image.png"), "annotations": objects}
        instances = instance("INPUT.MIN_SIZE_TRAIN", (10,))(record)["instances"]
        assert instances.gt_masks.shape == (0, 10, 12) and instances.gt_classes.shape == (0,)


@pytest.fixture
def plain(tmp_path):
    Image.new("L", (WIDTH, HEIGHT)).save(tmp_path / "image.png")
    return {
        "file_name": str(tmp_path / "image.png"),
        "annotations": [annotation(BOXES[0], 1, box_polygon)],
    }


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ([[1, 2, 3, 4]], "cannot be turned into a mask: a polygon has 4 numbers"),
        ([[1, 2, 3, 4, 5, 6, 7]], "a polygon has 7 numbers"),
        (None, "its segmentation is a NoneType"),
        (np.ones((3, 3)), r"has \(height, width\) \(3, 3\), but the image has \(40, 60\)"),
        ({"size": [60, 40], "counts": [2400]}, r"has \(height, width\) \[60, 40\]"),
        ({"size": [40, 60]}, "cannot be turned into a mask: 'counts'"),
    ],
)
def test_malformed_masks(plain, instance, segmentation, message):
    plain["annotations"][0]["segmentation"] = segmentation
    with pytest.raises(UserError, match=f"image.png .*{message}"):
        instance()(plain)


def test_classes_and_annotations_that_are_wrong(plain, instance):
    with pytest.raises(UserError, match="image.png has classes 1; expected 0 to 0"):
        instance("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 1)(plain)
    del plain["annotations"]
    with pytest.raises(UserError, match="image.png has no instance annotations"):
        instance()(plain)
