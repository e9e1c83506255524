from __future__ import annotations

import hashlib
import json
import os
from collections import deque
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ddep.data.datasets.camvid import panoptic_from_semantic, prepare_camvid
from ddep.data.datasets.preparation import image_pairs
from ddep.errors import UserError

CLASSES = [
    *("sky", "building", "pole", "road", "pavement", "tree", "sign symbol", "fence"),
    *("car", "pedestrian", "bicyclist"),
]
CAR, PEDESTRIAN, BICYCLIST, UNLABELLED = 8, 9, 10, 11


def save(path: Path, pixels: np.ndarray) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels).save(path)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    """Two images per split: squares of every class, and things that touch in several ways."""
    folder = tmp_path / "source"
    rng = np.random.default_rng(0)
    labels = np.zeros((60, 80), dtype=np.uint8)
    labels[30:] = 3
    labels[0:6, 0:6] = labels[6:12, 6:12] = CAR  # one: they touch at a corner
    labels[20:26, 0:6] = labels[20:26, 7:13] = CAR  # two: a column of sky is between them
    labels[40:46, 40:46] = PEDESTRIAN
    labels[40:46, 46:52] = BICYCLIST  # another class: touching does not join
    labels[50, 0:19] = PEDESTRIAN  # 19 pixels: a speck
    labels[52, 0:20] = PEDESTRIAN  # 20 pixels: not one
    labels[58:, :] = UNLABELLED
    for split in ("train", "val", "test"):
        for name, ending in (("0001TP_1", "png"), ("0001TP_0", "jpg")):
            save(folder / split / f"{name}.{ending}", rng.integers(0, 255, (60, 80, 3), np.uint8))
            save(folder / f"{split}annot" / f"{name}.png", labels)
            labels = labels[:, ::-1]
    return folder


def tree(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*")
        if path.is_file()
    }


def ids_of(path: str) -> np.ndarray:
    red, green, blue = np.asarray(Image.open(path)).astype(int).transpose(2, 0, 1)
    return red + 256 * green + 65536 * blue


def check_consistent(records: list[dict], labels_of: dict[str, np.ndarray]) -> dict[str, int]:
    """Compare every file with the source labels, by other means; count instances by class."""
    counts = {CLASSES[thing]: 0 for thing in (CAR, PEDESTRIAN, BICYCLIST)}
    for record in records:
        labels = labels_of[Path(record["file_name"]).stem]
        assert labels.shape == (record["height"], record["width"])
        assert Image.open(record["file_name"]).size == (record["width"], record["height"])
        sem_seg = np.asarray(Image.open(record["sem_seg_file_name"]))
        assert sem_seg.dtype == np.uint8
        np.testing.assert_array_equal(sem_seg[labels == UNLABELLED], 255)
        np.testing.assert_array_equal(sem_seg[labels < 11], labels[labels < 11])

        ids = ids_of(record["pan_seg_file_name"])
        described = {segment["id"]: segment for segment in record["segments_info"]}
        assert sorted(described) == [i for i in np.unique(ids) if i]
        rebuilt = np.full(labels.shape, UNLABELLED, dtype=np.uint8)
        for segment_id, segment in described.items():
            mask = ids == segment_id
            assert segment["area"] == mask.sum()
            x, y, width, height = segment["bbox"]
            assert mask[y : y + height, x : x + width].sum() == mask.sum()
            assert segment["isthing"] == (segment["category_id"] in (CAR, PEDESTRIAN, BICYCLIST))
            rebuilt[mask] = segment["category_id"]
        void = ids == 0
        np.testing.assert_array_equal(rebuilt[~void], labels[~void])
        for class_id, name in enumerate(CLASSES):
            number = sum(s["category_id"] == class_id for s in described.values())
            mask = (labels == class_id).astype(np.uint8)
            if name in counts:
                _, _, stats, _ = cv2.connectedComponentsWithStats(mask, connectivity=8)
                areas = stats[1:, cv2.CC_STAT_AREA]
                assert number == (areas >= 20).sum()
                assert void[mask > 0].sum() == areas[areas < 20].sum()
                counts[name] += number
            else:
                assert number == mask.any()
                assert not void[mask > 0].any()
    return counts


def test_prepared_labels(source: Path, root: Path) -> None:
    counts = prepare_camvid(source, root / "camvid")
    specks = "specks below 20 pixels left void"
    expected = {"images": 2, "car": 6, "pedestrian": 4, "bicyclist": 2, specks: 2}
    assert counts == dict.fromkeys(("train", "val", "test"), expected)
    for split in ("train", "val", "test"):
        labels = {
            path.stem: np.asarray(Image.open(path)) for path in (source / f"{split}annot").iterdir()
        }
        records = DatasetCatalog.get(f"camvid_panoptic_{split}")
        assert [Path(r["file_name"]).name for r in records] == ["0001TP_0.jpg", "0001TP_1.png"]
        found = check_consistent(records, labels)
        assert found == {"car": 6, "pedestrian": 4, "bicyclist": 2}
        keys = ("file_name", "image_id", "height", "width", "sem_seg_file_name")
        assert DatasetCatalog.get(f"camvid_sem_seg_{split}") == [
            {key: record[key] for key in keys} for record in records
        ]
        for record in records:
            copied = Path(record["file_name"])
            assert copied.read_bytes() == (source / split / copied.name).read_bytes()
            assert not copied.is_symlink()


def flood(mask: np.ndarray) -> np.ndarray:
    """Number the 8-connected components of a mask by flooding."""
    numbers = np.zeros(mask.shape, dtype=int)
    for start in zip(*np.nonzero(mask), strict=True):
        if numbers[start]:
            continue
        numbers[start] = number = numbers.max() + 1
        queue = deque([start])
        while queue:
            y, x = queue.popleft()
            for v in range(max(0, y - 1), min(mask.shape[0], y + 2)):
                for u in range(max(0, x - 1), min(mask.shape[1], x + 2)):
                    if mask[v, u] and not numbers[v, u]:
                        numbers[v, u] = number
                        queue.append((v, u))
    return numbers


@settings(max_examples=15, deadline=None)
@given(st.integers(0, 2**32 - 1), st.floats(0.3, 0.7))
def test_instances_are_8_connected_components(seed: int, density: float) -> None:
    rng = np.random.default_rng(seed)
    sem_seg = np.where(rng.random((24, 24)) < density, CAR, 255).astype(np.uint8)
    panoptic, category_ids, specks = panoptic_from_semantic(sem_seg)
    expected = flood(sem_seg == CAR)
    areas = [(expected == number).sum() for number in range(1, expected.max() + 1)]
    assert specks == sum(area < 20 for area in areas)
    assert category_ids == {i + 1: 9 for i in range(sum(area >= 20 for area in areas))}
    for number, area in enumerate(areas, start=1):
        found = np.unique(panoptic[expected == number])
        assert len(found) == 1
        assert (found[0] == 0) == (area < 20)
        if found[0]:
            assert (panoptic == found[0]).sum() == area


def test_metadata(root: Path) -> None:
    for split in ("train", "val", "test"):
        semantic = MetadataCatalog.get(f"camvid_sem_seg_{split}")
        assert semantic.evaluator_type == "sem_seg"
        assert semantic.ignore_label == 255
        assert semantic.stuff_classes == CLASSES
        assert semantic.stuff_colors[3] == [128, 64, 128]
        panoptic = MetadataCatalog.get(f"camvid_panoptic_{split}")
        assert panoptic.evaluator_type == "panoptic_seg"
        assert panoptic.stuff_classes == CLASSES
        assert panoptic.thing_dataset_id_to_contiguous_id == {9: 8, 10: 9, 11: 10}
        assert panoptic.panoptic_root == str(root / "camvid" / f"panoptic_{split}")


def test_twice_is_the_same_and_in_place_works(source: Path, tmp_path: Path) -> None:
    first = prepare_camvid(source, tmp_path / "out")
    files = tree(tmp_path / "out")
    assert prepare_camvid(source, tmp_path / "out") == first
    assert tree(tmp_path / "out") == files
    original = tree(source)
    prepare_camvid(source, source)
    in_place = tree(source)
    assert in_place == {**original, **files}


def test_a_label_out_of_range_leaves_no_data_set(source: Path, root: Path) -> None:
    prepare_camvid(source, root / "camvid")
    label = source / "valannot" / "0001TP_1.png"
    pixels = np.asarray(Image.open(label)).copy()
    pixels[5, 5] = 12
    save(label, pixels)
    with pytest.raises(UserError, match=f"{label}: label 12 is out of range; expected 0..10"):
        prepare_camvid(source, root / "camvid")
    assert not (root / "camvid" / "panoptic_val.json").exists()
    with pytest.raises(UserError, match=r"panoptic_val.json cannot be read"):
        DatasetCatalog.get("camvid_sem_seg_val")


def test_mistakes_in_the_source(source: Path, tmp_path: Path) -> None:
    target = tmp_path / "out"
    image, label = source / "test" / "0001TP_0.jpg", source / "testannot" / "0001TP_0.png"
    content, label_content = image.read_bytes(), label.read_bytes()

    image.write_bytes(content[: len(content) // 2])
    with pytest.raises(UserError, match=f"{image} cannot be read: .*truncated"):
        prepare_camvid(source, target)
    image.write_bytes(content)

    save(label, np.zeros((60, 79), dtype=np.uint8))
    with pytest.raises(UserError, match=f"{label}: 79x60 pixels, but its image .* has 80x60"):
        prepare_camvid(source, target)
    save(label, np.zeros((60, 80, 3), dtype=np.uint8))
    with pytest.raises(UserError, match=f"{label} is of kind RGB; expected one integer"):
        prepare_camvid(source, target)

    label.unlink()
    with pytest.raises(UserError, match=f"{image}: its label {label} is missing"):
        prepare_camvid(source, target)
    label.write_bytes(label_content)

    (source / "val").rename(source / "validation")
    with pytest.raises(UserError, match=f"{source / 'val'} is not a folder; expected CamVid in"):
        prepare_camvid(source, tmp_path / "nothing")
    assert not (tmp_path / "nothing").exists()


def test_real_camvid(shared_data: Path, root: Path, tmp_path: Path) -> None:
    sizes = {"train": 367, "val": 101, "test": 233}
    some = tmp_path / "some"
    labels: dict[str, dict[str, np.ndarray]] = {}
    for split, size in sizes.items():
        camvid = shared_data / "camvid"
        pairs = image_pairs(camvid / split, camvid / f"{split}annot", ".png", "CamVid")
        assert len(pairs) == size
        labels[split] = {}
        for image, label in pairs[:: size // 6]:
            for file in (image, label):
                (some / file.parent.name).mkdir(parents=True, exist_ok=True)
                os.symlink(file, some / file.parent.name / file.name)
            labels[split][image.stem] = np.asarray(Image.open(label))
    counts = prepare_camvid(some, root / "camvid")
    for split in sizes:
        records = DatasetCatalog.get(f"camvid_panoptic_{split}")
        assert len(records) == len(labels[split]) >= 6
        found = check_consistent(records, labels[split])
        assert found == {name: counts[split][name] for name in found}
        assert found["car"] > 5
        listed = json.loads((root / "camvid" / f"panoptic_{split}.json").read_text())
        assert [category["name"] for category in listed["categories"]][8] == "car"
