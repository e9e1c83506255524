from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from detectron2.data import MetadataCatalog
from PIL import Image

from ddep.data.image_reader import UnreadableImageError
from ddep.data.mappers import MAPPERS, build_mapper
from ddep.errors import UserError

IGNORE = 255


@pytest.fixture
def record(tmp_path):
    """An image of 40x60 blocks of colour 20 c, where the label is class c; class 5 is ignored."""
    classes = np.random.default_rng(0).integers(0, 6, (4, 6)).repeat(10, 0).repeat(10, 1)
    Image.fromarray((20 * classes).astype(np.uint8)).save(tmp_path / "image.png")
    labels = np.where(classes == 5, IGNORE, classes).astype(np.uint8)
    Image.fromarray(labels).save(tmp_path / "labels.png")
    return {
        "file_name": str(tmp_path / "image.png"),
        "sem_seg_file_name": str(tmp_path / "labels.png"),
        "image_id": "image",
        "height": 40,
        "width": 60,
    }


@pytest.fixture
def semantic(config):
    def make(*overrides, is_train=True):
        defaults = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 5, "INPUT.MIN_SIZE_TRAIN", (40,))
        return build_mapper(config(*defaults, *overrides), is_train)

    return make


def check_targets(sample: dict) -> None:
    labels, instances = sample["sem_seg"], sample["instances"]
    assert labels.dtype == torch.int64 and instances.gt_masks.dtype == torch.bool
    assert sample["image"].shape == (3, *labels.shape) and instances.image_size == labels.shape
    expected = sorted(set(labels.flatten().tolist()) - {IGNORE})
    assert instances.gt_classes.tolist() == expected and instances.gt_classes.dtype == torch.int64
    for category, mask in zip(expected, instances.gt_masks, strict=True):
        assert torch.equal(mask, labels == category)


def test_one_mask_per_class(record, semantic):
    before = dict(record)
    sample = semantic("INPUT.RANDOM_FLIP", "none")(record)
    assert record == before
    assert set(sample) == {
        *("image", "sem_seg", "instances", "file_name", "image_id", "height", "width")
    }
    assert (sample["height"], sample["width"], sample["image_id"]) == (40, 60, "image")
    assert sample["image"].dtype == torch.uint8 and sample["image"].is_contiguous()
    labels = np.asarray(Image.open(record["sem_seg_file_name"]))
    assert np.array_equal(sample["sem_seg"], labels)
    assert np.array_equal(sample["image"][0], np.asarray(Image.open(record["file_name"])))
    check_targets(sample)


def test_image_and_labels_move_together(record, semantic):
    mapper = semantic(
        *("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", (33, 27)),
        *("INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", 0.8, "INPUT.SIZE_DIVISIBILITY", 48),
    )
    np.random.seed(0)
    seen = set()
    for _ in range(20):
        sample = mapper(record)
        check_targets(sample)
        assert sample["image"].shape == (3, 48, 48)
        image, labels = sample["image"], sample["sem_seg"]
        inside = torch.zeros(48, 48, dtype=torch.bool)
        inside[:33, :27] = True
        assert (labels[~inside] == IGNORE).all() and (image[:, ~inside] == 128).all()
        classes = image[0][inside] // 20
        classes[classes == 5] = IGNORE
        assert torch.equal(classes.long(), labels[inside])
        seen.add(tuple(classes.tolist()))
    assert len(seen) > 10


def test_nothing_but_ignored_pixels(record, semantic):
    Image.fromarray(np.full((40, 60), IGNORE, np.uint8)).save(record["sem_seg_file_name"])
    instances = semantic()(record)["instances"]
    assert instances.gt_masks.shape == (0, 40, 60) and instances.gt_masks.dtype == torch.bool
    assert instances.gt_classes.shape == (0,) and instances.gt_classes.dtype == torch.int64


def test_labels_of_16_bits(record, semantic):
    labels = np.full((40, 60), 846, np.uint16)
    labels[:, 30:] = 65535
    Image.fromarray(labels).save(record["sem_seg_file_name"])
    keys = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 847, "MODEL.SEM_SEG_HEAD.IGNORE_VALUE", 65535)
    instances = semantic(*keys)(record)["instances"]
    assert instances.gt_classes.tolist() == [846] and instances.gt_masks.sum() == 40 * 30


def test_channel_order(record, semantic):
    pixels = np.random.default_rng(1).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(record["file_name"])
    for order in ("RGB", "BGR"):
        sample = semantic("INPUT.FORMAT", order, "INPUT.RANDOM_FLIP", "none")(record)
        expected = pixels if order == "RGB" else pixels[..., ::-1]
        assert np.array_equal(sample["image"].permute(1, 2, 0), expected)


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, mapper in MAPPERS.items()
        if name != "ddep_denoising" and mapper.needs_labels != "video_segm"
    ],
)
def test_test_time_needs_no_labels(record, semantic, name):
    del record["sem_seg_file_name"]
    keys = (
        "INPUT.DATASET_MAPPER_NAME",
        name,
        "INPUT.MIN_SIZE_TEST",
        20,
        "INPUT.CENTER_CROP_TEST",
        0,
    )
    sample = semantic(*keys, is_train=False)({**record, "position": 3, "annotations": []})
    assert set(sample) == {"image", "file_name", "image_id", "height", "width"}
    assert sample["image"].shape == (3, 20, 30)
    assert (sample["height"], sample["width"]) == (40, 60)


def test_ids_out_of_range(record, semantic):
    labels = np.zeros((40, 60), np.uint8)
    labels[0, :3] = 5, 7, IGNORE
    Image.fromarray(labels).save(record["sem_seg_file_name"])
    with pytest.raises(UserError) as error:
        semantic()(record)
    message = str(error.value)
    assert message.startswith(f"label image {record['sem_seg_file_name']} has the ids 5, 7;")
    assert "0 to 4, or 255" in message and "NUM_CLASSES" in message and "\n" not in message
    wider = semantic("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 8)(record)
    assert wider["instances"].gt_classes.tolist() == [0, 5, 7]


def test_sizes_that_differ(record, semantic):
    with pytest.raises(UserError, match="image.png is 60x40, but its annotation says 40x60"):
        semantic()({**record, "height": 60, "width": 40})
    Image.fromarray(np.zeros((60, 40), np.uint8)).save(record["sem_seg_file_name"])
    with pytest.raises(UserError, match="labels.png is 40x60, but its image is 60x40"):
        semantic()(record)


def test_labels_that_are_not_there(record, semantic):
    Path(record["sem_seg_file_name"]).unlink()
    with pytest.raises(UnreadableImageError, match="label image .*labels.png cannot be read"):
        semantic()(record)
    del record["sem_seg_file_name"]
    with pytest.raises(UserError, match="image.png has no semantic labels"):
        semantic()(record)


def test_ignore_label_of_the_data_set(semantic):
    MetadataCatalog.get("test_ignoring_0").set(ignore_label=0)
    with pytest.raises(UserError, match="IGNORE_VALUE is 255, but .* test_ignoring_0 is 0"):
        semantic("DATASETS.TRAIN", ("test_ignoring_0",))
    MetadataCatalog.pop("test_ignoring_0")


def test_unknown_mapper(config):
    with pytest.raises(UserError, match="DATASET_MAPPER_NAME is 'dino'; expected .*ddep_denoising"):
        build_mapper(config("INPUT.DATASET_MAPPER_NAME", "dino"), is_train=True)


def test_camvid(semantic, request):
    folder = Path(request.config.rootpath).parent / "shared" / "data" / "camvid"
    if not folder.is_dir():
        pytest.skip("no CamVid images")
    keys = (
        *("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 12, "INPUT.MIN_SIZE_TRAIN", (180,)),
        *("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", (128, 160)),
        *("INPUT.COLOR_AUG_SSD", True),
    )
    mapper = semantic(*keys)
    for path in sorted((folder / "train").iterdir())[:5]:
        labels = folder / "trainannot" / f"{path.stem}.png"
        sample = mapper({"file_name": str(path), "sem_seg_file_name": str(labels)})
        check_targets(sample)
        assert sample["image"].shape == (3, 128, 160) and sample["image"].float().std() > 10
        assert (sample["height"], sample["width"]) == (360, 480)
        assert len(sample["instances"]) >= 3
