from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from detectron2.data.datasets.builtin_meta import COCO_CATEGORIES
from detectron2.data.datasets.coco_panoptic import load_coco_panoptic_json
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from ddep.data.datasets.panoptic import (
    Category,
    PanopticSplit,
    encode_panoptic,
    load_panoptic,
    panoptic_metadata,
    segments_info,
)
from ddep.data.image_reader import read_panoptic
from ddep.errors import UserError

CATEGORIES: list[Category] = [
    {"id": 3, "name": "sky", "isthing": 0, "color": [1, 2, 3]},
    {"id": 7, "name": "cat", "isthing": 1, "color": [4, 5, 6]},
    {"id": 9, "name": "sea", "isthing": 0, "color": [7, 8, 9]},
]


def test_metadata_of_mixed_things_and_stuff() -> None:
    metadata = panoptic_metadata(CATEGORIES)
    assert metadata["stuff_classes"] == ["sky", "cat", "sea"]
    assert metadata["stuff_colors"] == [[1, 2, 3], [4, 5, 6], [7, 8, 9]]
    assert metadata["stuff_dataset_id_to_contiguous_id"] == {3: 0, 7: 1, 9: 2}
    assert metadata["thing_dataset_id_to_contiguous_id"] == {7: 1}
    # A thing's contiguous id is its index.
    assert metadata["thing_classes"][1] == "cat"
    assert metadata["thing_colors"][1] == [4, 5, 6]


def test_metadata_of_coco_is_what_its_evaluators_expect() -> None:
    metadata = panoptic_metadata(COCO_CATEGORIES)
    things = [c for c in COCO_CATEGORIES if c["isthing"]]
    assert len(metadata["stuff_classes"]) == 133
    assert metadata["thing_classes"] == [c["name"] for c in things]
    assert metadata["thing_colors"] == [c["color"] for c in things]
    assert metadata["thing_dataset_id_to_contiguous_id"] == {
        c["id"]: i for i, c in enumerate(things)
    }
    assert metadata["stuff_dataset_id_to_contiguous_id"][200] == 132


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(1, 9), st.integers(1, 9))
def test_segments_are_described_as_in_coco(seed: int, height: int, width: int) -> None:
    panoptic = np.random.default_rng(seed).integers(0, 6, (height, width))
    category_ids = {i: 10 * i for i in range(1, 6)}
    expected = []
    for segment_id in range(1, 6):
        y, x = np.nonzero(panoptic == segment_id)
        if len(y):
            box = [x.min(), y.min(), x.max() - x.min() + 1, y.max() - y.min() + 1]
            expected.append(
                {
                    "id": segment_id,
                    "category_id": 10 * segment_id,
                    "area": len(y),
                    "bbox": [int(value) for value in box],
                    "iscrowd": 0,
                }
            )
    found = segments_info(panoptic, category_ids)
    assert found == expected
    assert json.loads(json.dumps(found)) == expected


def test_panoptic_pngs_hold_the_ids(tmp_path: Path) -> None:
    panoptic = np.array([[0, 1, 255], [256, 65535, 65536], [70_000, 2**24 - 1, 513]])
    colours = encode_panoptic(panoptic)
    red, green, blue = colours.astype(int).transpose(2, 0, 1)
    np.testing.assert_array_equal(red + 256 * green + 256**2 * blue, panoptic)
    Image.fromarray(colours).save(tmp_path / "a.png")
    np.testing.assert_array_equal(read_panoptic(str(tmp_path / "a.png")), panoptic)


@pytest.fixture
def split(tmp_path: Path) -> PanopticSplit:
    split = PanopticSplit.below(tmp_path, "train")
    segments = [{"id": 1, "category_id": 7, "area": 4, "bbox": [0, 0, 2, 2], "iscrowd": 0}]
    content = {
        "images": [
            {"id": 5, "file_name": "b.jpg", "height": 3, "width": 4},
            {"id": 6, "file_name": "a.jpg", "height": 5, "width": 6},
        ],
        "annotations": [
            {"image_id": 6, "file_name": "a.png", "segments_info": segments},
            {"image_id": 5, "file_name": "b.png", "segments_info": []},
        ],
        "categories": CATEGORIES,
    }
    split.panoptic_json.write_text(json.dumps(content))
    for folder, suffix in [("train", "jpg"), ("panoptic_train", "png"), ("sem_seg_train", "png")]:
        (tmp_path / folder).mkdir()
        for name in "ab":
            (tmp_path / folder / f"{name}.{suffix}").touch()
    return split


def test_dicts_are_detectron2s_plus_sizes_and_semantic_labels(
    split: PanopticSplit, tmp_path: Path
) -> None:
    found = load_panoptic(split, CATEGORIES)
    expected = load_coco_panoptic_json(
        str(split.panoptic_json),
        str(split.image_root),
        str(split.panoptic_root),
        panoptic_metadata(CATEGORIES),
    )
    expected[0].update(height=5, width=6)
    expected[1].update(height=3, width=4)
    for record, name in zip(expected, "ab", strict=True):
        record["sem_seg_file_name"] = str(tmp_path / "sem_seg_train" / f"{name}.png")
    assert found == expected
    assert found[0]["segments_info"][0]["category_id"] == 1
    assert found[0]["segments_info"][0]["isthing"] is True


def edit(split: PanopticSplit, change) -> None:
    content = json.loads(split.panoptic_json.read_text())
    change(content)
    split.panoptic_json.write_text(json.dumps(content))


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c["annotations"].clear(), "lists no images"),
        (lambda c: c.pop("images"), "not a panoptic JSON file of this data set"),
        (lambda c: c["annotations"][0].update(image_id=99), "not a panoptic JSON file.*99"),
        (lambda c: c["annotations"][0]["segments_info"][0].update(category_id=4), "KeyError.4"),
    ],
)
def test_json_of_another_kind(split: PanopticSplit, change, expected: str) -> None:
    edit(split, change)
    with pytest.raises(UserError, match=f"panoptic_train.json: .*{expected}"):
        load_panoptic(split, CATEGORIES)


def test_missing_and_malformed_files(split: PanopticSplit) -> None:
    for folder, suffix in [
        (split.image_root, "jpg"),
        (split.panoptic_root, "png"),
        (split.sem_seg_root, "png"),
    ]:
        first, second = (folder / f"{name}.{suffix}" for name in "ab")
        first.unlink()
        assert len(load_panoptic(split, CATEGORIES)) == 2  # reading it will say that it is missing
        second.unlink()
        with pytest.raises(UserError, match=f"{first} does not exist, nor does any other .*json"):
            load_panoptic(split, CATEGORIES)
        first.touch()
        second.touch()
    split.panoptic_json.write_text("{")
    with pytest.raises(UserError, match="not a JSON file"):
        load_panoptic(split, CATEGORIES)
    split.panoptic_json.unlink()
    with pytest.raises(UserError, match="cannot be read: No such file"):
        load_panoptic(split, CATEGORIES)
