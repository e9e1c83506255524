from __future__ import annotations

import hashlib
from pathlib import Path

import cv2
import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from PIL import Image
from pycocotools import mask as coco_mask

from ddep.data.datasets.image_folder import load_image_folder
from ddep.data.datasets.shape_scenes import CATEGORIES, draw_scene
from ddep.data.datasets.shape_shifts import SHIFTS, shift_image
from ddep.data.datasets.shape_things import outline_distance
from ddep.data.datasets.shapes import generate_shapes
from ddep.errors import UserError


def hashes(folder: Path) -> dict[str, str]:
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in folder.rglob("*.*")
    }


def test_the_same_seed_gives_the_same_files(tmp_path: Path) -> None:
    numbers = {"train": 3, "val": 2, "unlabelled": 4, "size": 48}
    generate_shapes(tmp_path / "a", seed=1, **numbers)
    generate_shapes(tmp_path / "b", seed=1, **numbers)
    generate_shapes(tmp_path / "c", seed=2, **numbers)
    first, again, other = (hashes(tmp_path / name) for name in "abc")
    assert len(first) == 3 * 3 + 2 * 3 + 4 + 2 + 2 + 3
    assert again == first
    assert other.keys() == first.keys()
    images = [name for name in first if name.startswith(("train/", "val/", "unlabelled/"))]
    assert len({first[name] for name in images} | {other[name] for name in images}) == 18


def test_more_images_keep_the_first_and_fewer_remove_the_rest(tmp_path: Path) -> None:
    few = {"train": 1, "val": 1, "unlabelled": 2, "size": 32}
    generate_shapes(tmp_path, **few)
    first = hashes(tmp_path)
    generate_shapes(tmp_path, **{**few, "train": 3, "unlabelled": 4})
    more = hashes(tmp_path)
    assert len(more) == len(first) + 2 * 3 + 2
    same = {name for name in first if more[name] == first[name]}
    assert first.keys() - same == {
        "classes_train.csv",
        "classes_unlabelled.csv",
        "instances_train.json",
        "panoptic_train.json",
    }
    generate_shapes(tmp_path, **few)
    assert hashes(tmp_path) == first


def test_labels_agree_and_cover_every_pixel(root: Path) -> None:
    counts = generate_shapes(root / "shapes", train=12, val=8, unlabelled=3, size=64)
    seen, things = set(), 0
    for split, number in (("train", 12), ("val", 8)):
        records = DatasetCatalog.get(f"shapes_panoptic_{split}")
        assert len(records) == number == counts[split]["images"]
        for record in records:
            image = np.asarray(Image.open(record["file_name"]))
            assert image.shape == (64, 64, 3) == (record["height"], record["width"], 3)
            sem_seg = np.asarray(Image.open(record["sem_seg_file_name"]))
            ids = np.asarray(Image.open(record["pan_seg_file_name"])).astype(int) @ [1, 256, 65536]
            described = {segment["id"]: segment for segment in record["segments_info"]}
            assert sorted(described) == np.unique(ids).tolist()  # no void
            for segment_id, segment in described.items():
                mask = ids == segment_id
                assert segment["area"] == mask.sum()
                assert np.unique(sem_seg[mask]).tolist() == [segment["category_id"]]
                assert segment["isthing"] == (segment["category_id"] < 4)
                if segment["isthing"]:
                    assert mask.sum() >= 30
                    things += 1
            stuff = [s["category_id"] for s in described.values() if not s["isthing"]]
            assert len(stuff) == len(set(stuff)) >= 1
            seen |= {segment["category_id"] for segment in described.values()}
    assert things == counts["train"]["things"] + counts["val"]["things"]
    _check_instances("shapes_instance_train", "shapes_panoptic_train")
    assert seen == set(range(8))
    assert len(load_image_folder("images:shapes/unlabelled")) == 3
    metadata = MetadataCatalog.get("shapes_panoptic_val")
    assert metadata.evaluator_type == "panoptic_seg"
    assert metadata.thing_classes == ["disc", "square", "triangle", "star"]
    assert len(metadata.stuff_classes) == len(CATEGORIES) == 8


def _check_instances(name: str, panoptic: str) -> None:
    """The things of each image are those of the panoptic set, as masks and boxes."""
    for record, other in zip(DatasetCatalog.get(name), DatasetCatalog.get(panoptic), strict=True):
        assert record["file_name"] == other["file_name"]
        ids = np.asarray(Image.open(other["pan_seg_file_name"])).astype(int) @ [1, 256, 65536]
        things = [segment for segment in other["segments_info"] if segment["isthing"]]
        for annotation, thing in zip(record["annotations"], things, strict=True):
            assert annotation["category_id"] == thing["category_id"]
            mask = coco_mask.decode(annotation["segmentation"]) == 1
            assert np.array_equal(mask, ids == thing["id"])
            rows, columns = np.nonzero(mask)
            left, top, width, height = annotation["bbox"]
            assert (left, top) == (columns.min(), rows.min())
            assert (width, height) == (np.ptp(columns) + 1, np.ptp(rows) + 1)


def test_things_occlude_each_other_and_differ_from_the_ground() -> None:
    occluded = 0
    for index in range(20):
        scene = draw_scene(np.random.default_rng(index), 96)
        assert scene.image.std(axis=(0, 1)).min() > 5
        for segment_id, category_id in scene.category_ids.items():
            if category_id == 1:  # a whole disc in sight fills pi / 4 of its box
                y, x = np.nonzero(scene.panoptic == segment_id)
                if min(y.min(), x.min()) > 0 and max(y.max(), x.max()) < 95:
                    fill = len(y) / (np.ptp(y) + 1) / (np.ptp(x) + 1)
                    occluded += fill < 0.7
    assert occluded >= 3


def test_subjects_are_one_large_thing_each_and_can_be_removed(root: Path) -> None:
    few = {"train": 1, "val": 1, "unlabelled": 1, "size": 48}
    generate_shapes(root / "shapes", **few)
    without = hashes(root / "shapes")
    generate_shapes(root / "shapes", **few, subjects=20)
    records = DatasetCatalog.get("shapes_classes_subjects")
    assert len(records) == 20
    things = [sum(category < 4 for category in record["classes"]) for record in records]
    assert things == [1] * 20
    generate_shapes(root / "shapes", **few)
    assert hashes(root / "shapes") == without
    sizes = [
        [(scene.panoptic == i).mean() for i, c in scene.category_ids.items() if c <= 4]
        for scene in (draw_scene(np.random.default_rng(i), 96, subject=True) for i in range(50))
    ]
    assert all(len(things) == 1 for things in sizes)
    assert np.mean(sizes) > 0.08


def test_labels_are_where_the_things_are_seen() -> None:
    """Around discs, the image changes more across the label's border than a little beside it."""
    on, beside, fills = [], [], []
    for index in range(30):
        scene = draw_scene(np.random.default_rng(index), 96)
        grey = scene.image.astype(float).mean(axis=2)
        slope = np.hypot(cv2.Sobel(grey, -1, 1, 0), cv2.Sobel(grey, -1, 0, 1))
        discs = np.isin(scene.panoptic, [i for i, c in scene.category_ids.items() if c == 1])
        inner = discs.astype(np.uint8)
        border = cv2.dilate(inner, np.ones((3, 3))) - cv2.erode(inner, np.ones((3, 3))) > 0
        on.append(slope[border].mean() if border.any() else np.nan)
        ring = cv2.erode(inner, np.ones((9, 9))) - cv2.erode(inner, np.ones((13, 13))) > 0
        beside.append(slope[ring].mean() if ring.any() else np.nan)
        for segment_id in np.unique(scene.panoptic[discs]):
            y, x = np.nonzero(scene.panoptic == segment_id)
            fills.append(len(y) / (np.ptp(y) + 1) / (np.ptp(x) + 1))
    assert np.nanmean(on) > 1.5 * np.nanmean(beside)
    # A whole disc fills pi / 4 of its box.
    assert np.median(fills) == pytest.approx(np.pi / 4, abs=0.03)


@pytest.mark.parametrize(
    ("class_id", "corners", "inner"), [(1, 4, None), (2, 3, None), (3, 5, 0.42)]
)
def test_outlines(class_id: int, corners: int, inner: float | None) -> None:
    radius = 20.0
    if corners == 4:
        angles = np.pi / 4 + np.arange(4) * np.pi / 2
        radii = np.full(4, radius)
    else:
        # The first corner points up, to negative y; a star has notches between its corners.
        number = corners * (2 if inner else 1)
        angles = -np.pi / 2 + np.arange(number) * 2 * np.pi / number
        radii = np.where(np.arange(number) % 2 == 0, radius, inner * radius if inner else radius)
    polygon = np.stack([radii * np.cos(angles), radii * np.sin(angles)], axis=1)
    y, x = np.mgrid[-25:26, -25:26] + 0.25
    truth = np.array(
        [
            -cv2.pointPolygonTest(polygon.astype(np.float32), (float(u), float(v)), True)
            for v, u in zip(y.ravel(), x.ravel(), strict=True)
        ]
    ).reshape(y.shape)
    found = outline_distance(class_id, y, x, radius)
    clear = np.abs(truth) > 1e-3
    np.testing.assert_array_equal(found[clear] < 0, truth[clear] < 0)
    inside = truth < -1e-3
    if corners != 5:  # inside a convex shape the nearest outline is an edge
        np.testing.assert_allclose(found[inside], truth[inside], atol=1e-4)


def test_disc_outline() -> None:
    assert outline_distance(0, np.array([3.0]), np.array([4.0]), 7.0) == pytest.approx(-2)


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [
        ("size", 31, 32),
        ("train", 0, 1),
        ("val", -1, 1),
        ("unlabelled", 0, 1),
        ("subjects", -1, 0),
        ("seed", -1, 0),
    ],
)
def test_mistakes(tmp_path: Path, option: str, value: int, least: int) -> None:
    with pytest.raises(UserError, match=f"--{option} is {value}; expected at least {least}"):
        generate_shapes(tmp_path / "shapes", **{option: value})
    assert not (tmp_path / "shapes").exists()


def test_scenes_without_a_shift_are_those_of_earlier_versions(tmp_path: Path) -> None:
    """Results in docs/experiments.md are about these very images."""
    generate_shapes(tmp_path, train=2, val=1, unlabelled=1, size=64)
    image = np.asarray(Image.open(tmp_path / "train" / "00001.png"))
    np.testing.assert_array_equal(image, draw_scene(np.random.default_rng([0, 0, 1]), 64).image)
    np.testing.assert_allclose(image.mean(axis=(0, 1)), [105.912, 125.768, 122.552], atol=0.05)
    labels = np.asarray(Image.open(tmp_path / "sem_seg_train" / "00001.png"))
    assert np.bincount(labels.ravel(), minlength=8).tolist() == [
        358,
        0,
        182,
        37,
        1125,
        0,
        1046,
        1348,
    ]


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_is_a_data_set_of_other_scenes_with_labels(root: Path, shift: str) -> None:
    numbers = {"train": 2, "val": 1, "unlabelled": 1, "size": 48}
    generate_shapes(root / "shapes", **numbers)
    before = hashes(root / "shapes")
    generate_shapes(root / "shapes", **numbers, shift=shift)
    first = hashes(root / "shapes" / shift)
    assert len(first) == len(before)
    assert not set(first.values()) & set(before.values())
    generate_shapes(root / "shapes", **numbers, shift=shift)
    again = hashes(root / "shapes")
    assert again == before | {f"{shift}/{name}": digest for name, digest in first.items()}
    records = DatasetCatalog.get(f"shapes_{shift}_panoptic_train")
    sem_seg = np.asarray(Image.open(records[1]["sem_seg_file_name"]))
    assert {s["category_id"] for s in records[1]["segments_info"]} == set(np.unique(sem_seg))
    assert len(DatasetCatalog.get(f"shapes_{shift}_classes_val")) == 1
    assert len(load_image_folder(f"images:shapes/{shift}/unlabelled")) == 1


@pytest.mark.parametrize("shift", SHIFTS)
def test_a_shift_changes_the_look_and_moves_nothing(shift: str) -> None:
    for index in range(5):
        image = draw_scene(np.random.default_rng(index), 96).image
        kept = image.copy()
        shifted = shift_image(np.random.default_rng(index), image, shift)
        np.testing.assert_array_equal(image, kept)
        assert (shifted.dtype, shifted.shape) == (image.dtype, image.shape)
        assert np.abs(shifted.astype(float) - image).mean() > 10
        slopes = []
        for picture in (image, shifted):
            grey = cv2.GaussianBlur(picture.astype(float).mean(axis=2), (0, 0), 1)
            slopes.append(np.hypot(cv2.Sobel(grey, -1, 1, 0), cv2.Sobel(grey, -1, 0, 1)))
        moves = [(0, 0), (0, 3), (3, 0), (0, -3), (-3, 0)]
        likeness = [
            np.corrcoef(np.roll(slopes[1], move, (0, 1)).ravel(), slopes[0].ravel())[0, 1]
            for move in moves
        ]
        assert np.argmax(likeness) == 0 and likeness[0] > 0.5
        assert likeness[0] > 1.2 * max(likeness[1:])


def test_an_unknown_shift(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--shift is dusk; expected one of none, night, fog, paint"):
        generate_shapes(tmp_path / "shapes", shift="dusk")
    assert not (tmp_path / "shapes").exists()
