from __future__ import annotations

import json
from collections import Counter

import numpy as np
import pytest
from detectron2.data import DatasetCatalog, MetadataCatalog
from detectron2.structures import BoxMode

from ddep.data.checks import DatasetReport, ImageReport, LabelSpace, Problem, check_record
from ddep.data.checks.dataset_report import MAX_LISTED
from tests.data.checks.trees import INSTANCES, PANOPTIC, SEMANTIC, Tree

SKY, CAT = 0, 1


def check(name: str, position: int) -> ImageReport:
    record = DatasetCatalog.get(name)[position]
    return check_record(LabelSpace.of(MetadataCatalog.get(name)), record)


def test_what_an_image_shows(tree: Tree) -> None:
    """15 rows of 24 pixels have labels; of instances' pixels there are only the cat's."""
    for name in (PANOPTIC, SEMANTIC):
        found = check(name, 0)
        assert found.class_pixels == {SKY: 180, CAT: 180}
        assert found.class_objects == ({SKY: 1, CAT: 1} if name == PANOPTIC else {})
        assert (found.problems, found.crowds, found.size) == ([], 0, (16, 24))
    found = check(INSTANCES, 0)
    assert (found.class_pixels, found.class_objects) == ({0: 180}, {0: 1})


def test_crowds_are_counted_separately(tree: Tree) -> None:
    found = check(PANOPTIC, 3)
    assert (found.crowds, found.class_objects) == (1, {SKY: 1})


def test_without_semantic_labels_pixels_are_counted_in_segments(tree: Tree) -> None:
    record = DatasetCatalog.get(PANOPTIC)[0]
    del record["sem_seg_file_name"]
    found = check_record(LabelSpace.of(MetadataCatalog.get(PANOPTIC)), record)
    assert found.class_pixels == {SKY: 180, CAT: 180}


def test_without_known_classes_there_is_no_range(tree: Tree) -> None:
    record = DatasetCatalog.get(SEMANTIC)[0]
    tree.save(tree.semantic("a"), np.full((16, 24), 254, dtype=np.uint8))
    assert check_record(LabelSpace(None, None, 255), record).problems == []
    (problem,) = check_record(LabelSpace(254, None, 255), record).problems
    assert problem.kind == "class"


def test_classes_of_whole_images_are_counted_and_checked(tree: Tree) -> None:
    record = {"file_name": DatasetCatalog.get(PANOPTIC)[0]["file_name"], "classes": [1, 3]}
    found = check_record(LabelSpace(2, None, 255), record)
    assert found.classes == {1}
    (problem,) = found.problems
    assert problem.message == f"image {record['file_name']} has class 3; expected 0 to 1"


def test_pixel_statistics_are_those_of_all_pixels() -> None:
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (n, n + 1, 3)) // (1 + np.arange(3)) for n in (3, 8)]
    report = DatasetReport("name", ())
    for image in images:
        histogram = [np.bincount(image[..., c].ravel(), minlength=256) for c in range(3)]
        report.add(ImageReport(size=image.shape[:2], histogram=np.stack(histogram)))
    pixels = np.concatenate([image.reshape(-1, 3) for image in images]).astype(np.float64)
    mean, std = report.pixel_statistics()
    np.testing.assert_allclose(mean, pixels.mean(0), rtol=1e-12)
    np.testing.assert_allclose(std, pixels.std(0), rtol=1e-12)
    assert report.to_json()["heights"] == [3, 8] and report.to_json()["widths"] == [4, 9]
    assert DatasetReport("name", ()).pixel_statistics() is None


def test_images_add_up() -> None:
    report = DatasetReport("name", ["sky", "cat", "sea"])
    report.add(ImageReport(class_pixels=Counter({0: 30, 1: 10}), class_objects=Counter({1: 2})))
    report.add(ImageReport(class_pixels=Counter({0: 60}), crowds=2))
    report.add(ImageReport())
    content = json.loads(json.dumps(report.to_json()))
    assert [tuple(entry.values()) for entry in content["classes"]] == [
        (0, "sky", 2, 90, 0),
        (1, "cat", 1, 10, 2),
        (2, "sea", 0, 0, 0),
    ]
    assert (content["images"], content["crowds"], content["images_without_labels"]) == (3, 2, 1)
    assert content["pixel_mean_rgb"] is None
    text = str(report)
    assert report.fine and "no problems" in text
    assert "1 images without labels, 2 crowds, 1 classes that do not occur" in text
    (row,) = [line for line in text.splitlines() if "| cat" in line]
    assert [cell.strip() for cell in row.split("|")[1:-1]] == ["cat", "1", "2", "10.00"]


def test_all_problems_are_counted_and_the_first_are_listed() -> None:
    report = DatasetReport("name", ())
    number = MAX_LISTED + 7
    report.add_problems(Problem("box", f"{i}.png", f"box {i}") for i in range(number))
    report.add_problems([Problem("missing", "x.png", "x.png does not exist")])
    content = report.to_json()
    assert content["problem_counts"] == {"box": number, "missing": 1}
    assert len(content["problems"]["box"]) == MAX_LISTED
    assert content["problems"]["box"][1] == {"file": "1.png", "message": "box 1"}
    text = str(report).splitlines()
    assert text[1] == f"{number + 1} problems" and not report.fine
    assert text[2].startswith("missing (1): ") and text[3] == "  x.png does not exist"
    assert text[5:] == [*(f"  box {i}" for i in range(5)), f"  ... and {number - 5} more"]


@pytest.mark.parametrize("box", [[1, 2, 3], ["a", 1, 2, 3], None, [1, 1, float("nan"), 3]])
def test_boxes_of_all_kinds(tree: Tree, box: object) -> None:
    record = DatasetCatalog.get(INSTANCES)[0]
    record["annotations"][0]["bbox"] = box
    found = check_record(LabelSpace.of(MetadataCatalog.get(INSTANCES)), record)
    assert [problem.kind for problem in found.problems] == ["box"]


def test_boxes_of_whole_objects_need_no_masks(tree: Tree) -> None:
    boxes = [[-5, 2, 10, 9], [0, 0, 0, 4]]  # beyond the image, and without area
    entries = [{"category_id": 0, "bbox": box, "bbox_mode": BoxMode.XYWH_ABS} for box in boxes]
    record = {"file_name": DatasetCatalog.get(PANOPTIC)[0]["file_name"], "annotations": entries}
    (problem,) = check_record(LabelSpace(1, 1, 255, boxes_only=True), record).problems
    assert problem.message.endswith("has a box without area, [0, 0, 0, 4]")
    kinds = [problem.kind for problem in check_record(LabelSpace(1, 1, 255), record).problems]
    assert kinds == ["box", "annotations"] * 2


def test_a_record_that_lacks_something_is_reported(tree: Tree) -> None:
    record = DatasetCatalog.get(PANOPTIC)[0]
    record["segments_info"] = [{"id": 1}]
    found = check_record(LabelSpace.of(MetadataCatalog.get(PANOPTIC)), record)
    (problem,) = found.problems
    assert problem.kind == "annotations" and problem.file == record["file_name"]
    assert problem.message.endswith("cannot be used: KeyError('category_id')")
    assert found.size == (16, 24)
