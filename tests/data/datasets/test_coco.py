from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from PIL import Image

from ddep.data.datasets.coco import prepare_coco
from ddep.errors import UserError


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def coco(root: Path) -> Path:
    """One image in val: a person, a blanket and a patch of void."""
    folder = root / "coco"
    panoptic = np.zeros((4, 6, 3), dtype=np.uint8)
    panoptic[:, 1:3] = (7, 1, 2)
    panoptic[:, 3:] = (255, 0, 0)
    save(folder / "panoptic_val2017" / "000000000139.png", panoptic)
    save(folder / "val2017" / "000000000139.jpg", panoptic)
    segments = [
        {"id": 7 + 256 + 2 * 65536, "category_id": 1, "area": 8, "bbox": [1, 0, 2, 4]},
        {"id": 255, "category_id": 200, "area": 12, "bbox": [3, 0, 3, 4]},
    ]
    content = {
        "images": [{"id": 139, "file_name": "000000000139.jpg", "height": 4, "width": 6}],
        "annotations": [
            {"image_id": 139, "file_name": "000000000139.png", "segments_info": segments}
        ],
    }
    (folder / "annotations").mkdir()
    (folder / "annotations" / "panoptic_val2017.json").write_text(json.dumps(content))
    return folder


def test_semantic_labels(coco: Path) -> None:
    assert prepare_coco(coco, workers=2) == {"val": {"semantic labels": 1}}
    (record,) = DatasetCatalog.get("coco_2017_val_panoptic_with_sem_seg")
    assert record["file_name"] == str(coco / "val2017" / "000000000139.jpg")
    assert record["image_id"] == 139
    assert record["sem_seg_file_name"].endswith("coco/panoptic_semseg_val2017/000000000139.png")
    sem_seg = np.asarray(Image.open(record["sem_seg_file_name"]))
    last = [c["id"] for c in COCO_CATEGORIES].index(200)
    np.testing.assert_array_equal(sem_seg, np.tile([255, 0, 0, last, last, last], (4, 1)))
    assert [s["category_id"] for s in record["segments_info"]] == [0, last]
    assert [s["isthing"] for s in record["segments_info"]] == [True, False]


def test_metadata(root: Path) -> None:
    metadata = MetadataCatalog.get("coco_2017_train_panoptic_with_sem_seg")
    assert metadata.evaluator_type == "coco_panoptic_seg"
    assert metadata.json_file == str(root / "coco" / "annotations" / "instances_train2017.json")
    assert metadata.panoptic_root == str(root / "coco" / "panoptic_train2017")
    assert metadata.sem_seg_root == str(root / "coco" / "panoptic_semseg_train2017")


def test_mistakes(coco: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="panoptic_train2017.json does not exist, nor that of val"):
        prepare_coco(tmp_path / "nowhere", workers=1)
    with pytest.raises(UserError, match="--workers is 0; expected at least 1"):
        prepare_coco(coco, workers=0)
    png = coco / "panoptic_val2017" / "000000000139.png"
    pixels = np.asarray(Image.open(png)).copy()
    pixels[0, 0] = (9, 0, 0)
    save(png, pixels)
    with pytest.raises(UserError, match=f"{png}: segment 9 is not listed in the panoptic JSON"):
        prepare_coco(coco, workers=1)
    png.unlink()
    with pytest.raises(UserError, match=f"{png} cannot be read"):
        prepare_coco(coco, workers=1)
