from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from ddep.data.mappers import build_mapper
from ddep.errors import UserError

HEIGHT, WIDTH = 30, 50
# Id: (class, box x0 y0 x1 y1); the last is a crowd. The ids need all three bytes.
SEGMENTS = {
    7: (2, (0, 0, 20, 30)),
    3 + 256 * 9: (0, (20, 0, 50, 10)),
    200 + 256 * 100 + 65536 * 250: (0, (25, 10, 45, 30)),
    65536: (1, (45, 20, 50, 30)),
}
CROWD = 65536


@pytest.fixture
def record(tmp_path):
    ids = np.zeros((HEIGHT, WIDTH), np.int64)
    semantic = np.full((HEIGHT, WIDTH), 255, np.uint8)
    for segment, (category, (x0, y0, x1, y1)) in SEGMENTS.items():
        ids[y0:y1, x0:x1] = segment
        semantic[y0:y1, x0:x1] = category
    coded = np.stack([ids % 256, ids // 256 % 256, ids // 65536], axis=2).astype(np.uint8)
    Image.fromarray(coded).save(tmp_path / "panoptic.png")
    # The image also shows the ids, so that it can be compared with the labels.
    Image.fromarray(coded).save(tmp_path / "image.png")
    Image.fromarray(semantic).save(tmp_path / "semantic.png")
    return {
        "file_name": str(tmp_path / "image.png"),
        "pan_seg_file_name": str(tmp_path / "panoptic.png"),
        "segments_info": [
            {"id": segment, "category_id": category, "iscrowd": int(segment == CROWD)}
            for segment, (category, _) in SEGMENTS.items()
        ],
    }


@pytest.fixture
def panoptic(config):
    def make(*overrides):
        defaults = ("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 3, "INPUT.MIN_SIZE_TRAIN", (HEIGHT,))
        defaults += ("INPUT.FORMAT", "RGB")
        name = ("INPUT.DATASET_MAPPER_NAME", "mask_former_panoptic")
        return build_mapper(config(*defaults, *name, *overrides), is_train=True)

    return make


def decode(image: torch.Tensor) -> torch.Tensor:
    red, green, blue = image.long()
    return red + 256 * green + 65536 * blue


def check_targets(sample: dict) -> None:
    """Each visible segment that is no crowd has its mask, in the annotation's order."""
    ids, instances = sample["pan_seg"], sample["instances"]
    assert ids.dtype == torch.int64 and instances.gt_masks.dtype == torch.bool
    assert instances.image_size == ids.shape == sample["image"].shape[1:]
    visible = [s for s in SEGMENTS if s != CROWD and (ids == s).any()]
    assert instances.gt_classes.tolist() == [SEGMENTS[s][0] for s in visible]
    for segment, mask in zip(visible, instances.gt_masks, strict=True):
        assert torch.equal(mask, ids == segment)


def test_one_mask_per_segment(record, panoptic):
    sample = panoptic("INPUT.RANDOM_FLIP", "none")(record)
    assert set(sample) == {"image", "pan_seg", "instances", "file_name", "height", "width"}
    assert torch.equal(sample["pan_seg"], decode(sample["image"]))
    check_targets(sample)
    for mask, segment in zip(sample["instances"].gt_masks, SEGMENTS, strict=False):
        x0, y0, x1, y1 = SEGMENTS[segment][1]
        assert mask.sum() == (x1 - x0) * (y1 - y0) and mask[y0:y1, x0:x1].all()


def test_image_and_labels_move_together(record, panoptic):
    mapper = panoptic(
        *("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", (12, 18)),
        *("INPUT.SIZE_DIVISIBILITY", 20),
    )
    np.random.seed(0)
    counts = set()
    for _ in range(30):
        sample = mapper(record)
        check_targets(sample)
        ids = sample["pan_seg"]
        assert torch.equal(ids[:12, :18], decode(sample["image"])[:12, :18])
        assert (ids[12:] == 0).all() and (ids[:, 18:] == 0).all() and ids.shape == (20, 20)
        counts.add(len(sample["instances"]))
    assert min(counts) < 3, "segments that were cropped away have no mask"


def test_large_scale_jitter(record, panoptic):
    keys = ("INPUT.DATASET_MAPPER_NAME", "coco_panoptic_lsj", "INPUT.IMAGE_SIZE", 40)
    mapper = panoptic(*keys)
    np.random.seed(0)
    padded = 0
    for _ in range(20):
        sample = mapper(record)
        check_targets(sample)
        assert sample["image"].shape == (3, 40, 40)
        outside = (sample["image"] == 128).all(0)
        assert (sample["pan_seg"][outside] == 0).all()
        padded += outside.sum() > 0
    assert padded > 3


@pytest.mark.parametrize("masks", [True, False])
def test_boxes_enclose_segments_for_detr(record, panoptic, masks):
    keys = ("INPUT.DATASET_MAPPER_NAME", "detr_panoptic_boxes", "MODEL.DETR.NUM_CLASSES", 3)
    mapper = panoptic(*keys, "MODEL.MASK_ON", masks, "MODEL.SEM_SEG_HEAD.NUM_CLASSES", 1)
    np.random.seed(0)
    flipped = 0
    for _ in range(10):
        instances = mapper(record)["instances"]
        boxes = [list(SEGMENTS[s][1]) for s in SEGMENTS if s != CROWD]
        if instances.gt_boxes.tensor[0, 0] > 0:  # flipped
            boxes = [[WIDTH - x1, y0, WIDTH - x0, y1] for x0, y0, x1, y1 in boxes]
            flipped += 1
        assert instances.gt_boxes.tensor.tolist() == boxes
        assert instances.gt_classes.tolist() == [SEGMENTS[s][0] for s in SEGMENTS if s != CROWD]
        assert instances.has("gt_masks") == masks
        if masks:
            assert torch.equal(instances.gt_masks.get_bounding_boxes().tensor, torch.tensor(boxes))
    assert 0 < flipped < 10


def test_semantic_labels_are_added(record, panoptic):
    record["sem_seg_file_name"] = record["file_name"].replace("image", "semantic")
    np.random.seed(1)
    mapper = panoptic(
        *("INPUT.CROP.ENABLED", True, "INPUT.CROP.TYPE", "absolute", "INPUT.CROP.SIZE", (12, 18)),
        *("INPUT.CROP.SINGLE_CATEGORY_MAX_AREA", 0.9, "INPUT.SIZE_DIVISIBILITY", 20),
    )
    for _ in range(10):
        sample = mapper(record)
        check_targets(sample)
        expected = torch.full((20, 20), 255)
        for segment, (category, _) in SEGMENTS.items():
            expected[sample["pan_seg"] == segment] = category
        assert torch.equal(sample["sem_seg"], expected)


def test_no_segments(record, panoptic):
    Image.new("RGB", (WIDTH, HEIGHT)).save(record["pan_seg_file_name"])
    for segments in ([], record["segments_info"]):
        instances = panoptic()({**record, "segments_info": segments})["instances"]
        assert instances.gt_masks.shape == (0, HEIGHT, WIDTH)
        assert instances.gt_classes.shape == (0,)


def test_ids_that_the_annotation_lacks(record, panoptic):
    record["segments_info"] = record["segments_info"][1:]
    with pytest.raises(UserError) as error:
        panoptic()(record)
    message = str(error.value)
    assert f"{record['pan_seg_file_name']} has the segment ids 7, which" in message
    assert "expected 0 (void) and 2307, " in message and "\n" not in message


def test_classes_out_of_range(record, panoptic):
    with pytest.raises(UserError, match="panoptic.png has classes 2; expected 0 to 1"):
        panoptic("MODEL.SEM_SEG_HEAD.NUM_CLASSES", 2)(record)


def test_labels_that_do_not_fit(record, panoptic):
    with pytest.raises(UserError, match="image.png has no panoptic labels"):
        panoptic()({"file_name": record["file_name"]})
    Image.new("RGB", (HEIGHT, WIDTH)).save(record["pan_seg_file_name"])
    with pytest.raises(UserError, match="panoptic.png is 30x50, but its image is 50x30"):
        panoptic()(record)
