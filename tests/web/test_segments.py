from __future__ import annotations

import numpy as np
import torch
from detectron2.data import Metadata
from detectron2.structures import Boxes, Instances

from ddep.web.legend import legend_of, style_of
from ddep.web.picture import draw_segments, picture_size, pixel_at
from ddep.web.segments import (
    NOTHING,
    Palette,
    instance_segments,
    panoptic_segments,
    semantic_segments,
)

METADATA = Metadata(
    thing_classes=["dog", "cat"],
    thing_colors=[(200, 0, 0), (0, 200, 0)],
    stuff_classes=["dog", "cat", "sky"],
    stuff_colors=[(200, 0, 0), (0, 200, 0), (0, 0, 200)],
)


def panoptic():
    ids = torch.tensor([[1, 1, 0], [1, 4, 4], [2, 2, 4]], dtype=torch.int32)
    info = [
        {"id": 1, "isthing": False, "category_id": 2, "score": 0.9},
        {"id": 4, "isthing": True, "category_id": 0, "score": 0.8},
        {"id": 2, "isthing": True, "category_id": 0, "score": 0.7},
    ]
    return panoptic_segments(ids, info, Palette(METADATA))


def overlapping():
    """A cat of score 0.9 over a dog of score 0.6, and a dog of score 0.2 over neither."""
    instances = Instances((2, 4))
    instances.pred_masks = torch.tensor(
        [[[0, 0, 0, 1], [0, 0, 0, 0]], [[0, 1, 1, 0], [0, 0, 0, 0]], [[1, 1, 0, 0], [1, 0, 0, 0]]]
    ).bool()
    instances.scores = torch.tensor([0.2, 0.9, 0.6])
    instances.pred_classes = torch.tensor([0, 1, 0])
    instances.pred_boxes = Boxes(torch.zeros(3, 4))
    return instance_segments(instances, Palette(METADATA))


def test_each_pixel_shows_its_panoptic_segment_unless_its_class_is_hidden() -> None:
    segments = panoptic()
    assert [segment.name for segment in segments.found] == ["sky", "dog", "dog"]
    assert [segment.area for segment in segments.found] == [3, 3, 2]
    np.testing.assert_array_equal(segments.seen(), [[0, 0, -1], [0, 1, 1], [2, 2, 1]])
    np.testing.assert_array_equal(segments.seen({"dog"}), [[0, 0, -1], [0, -1, -1], [-1, -1, -1]])


def test_semantic_classes_are_sorted_by_their_pixels() -> None:
    segments = semantic_segments(torch.tensor([[2, 2], [2, 1]]), Palette(METADATA))
    assert [(segment.name, segment.area) for segment in segments.found] == [("sky", 3), ("cat", 1)]
    np.testing.assert_array_equal(segments.seen(), [[0, 0], [0, 1]])


def test_the_best_instance_is_seen_and_what_it_hides_when_it_is_off() -> None:
    segments = overlapping()
    names = [segment.name for segment in segments.found]
    assert names == ["dog", "dog", "cat"]  # by ascending score

    def scores(seen: np.ndarray) -> list[list[float]]:
        return [
            [0 if i == NOTHING else round(segments.found[i].score, 1) for i in row] for row in seen
        ]

    assert scores(segments.seen()) == [[0.6, 0.9, 0.9, 0.2], [0.6, 0, 0, 0]]
    assert scores(segments.seen({"cat"})) == [[0.6, 0.6, 0, 0.2], [0.6, 0, 0, 0]]
    assert scores(segments.seen(min_score=0.5)) == [[0.6, 0.9, 0.9, 0], [0.6, 0, 0, 0]]


def test_boxes_without_masks_are_outlines_and_small_ones_can_be_clicked() -> None:
    instances = Instances((8, 8))
    instances.pred_boxes = Boxes(torch.tensor([[2.0, 2, 4, 4], [0, 0, 8, 8]]))
    instances.scores = torch.tensor([0.3, 0.9])
    instances.pred_classes = torch.tensor([1, 0])
    segments = instance_segments(instances, Palette(METADATA))
    seen = segments.seen()
    assert not segments.filled
    assert segments.found[seen[3, 3]].name == "cat" and segments.found[seen[6, 6]].name == "dog"
    assert segments.found[seen[3, 3]].area == 4
    image = np.full((80, 80, 3), 255, dtype=np.uint8)
    picture = draw_segments(image, seen, segments.found, filled=False)
    assert (picture[60, 60] == 255).all() and (picture[20:23, 20:23] != 255).any()


def test_classes_without_names_and_colours_have_numbers_and_some_colours() -> None:
    few = Metadata(stuff_classes=["sky"])
    segments = semantic_segments(torch.tensor([[0, 5]]), Palette(few))
    assert {segment.name for segment in segments.found} == {"sky", "class 5"}
    assert len({segment.colour for segment in segments.found}) == 2
    assert semantic_segments(torch.tensor([[7]]), Palette(None)).found[0].name == "class 7"


def test_the_legend_counts_what_is_seen() -> None:
    assert [(e.name, e.text) for e in legend_of(panoptic())] == [
        ("dog", "dog × 2, 56 %"),
        ("sky", "sky, 33 %"),
    ]
    assert [e.text for e in legend_of(overlapping(), min_score=0.5)] == ["dog, 25 %", "cat, 25 %"]


def test_each_box_of_the_legend_has_the_colour_of_its_class() -> None:
    style = style_of(legend_of(panoptic()), "legend")
    first, second = style.split("}")[:2]
    assert "nth-of-type(1)" in first and "(200, 0, 0)" in first
    assert "nth-of-type(2)" in second and "(0, 0, 200)" in second


def test_pictures_have_the_colours_of_classes_and_the_image_where_nothing_is() -> None:
    segments = panoptic()
    image = np.full((90, 90, 3), 100, dtype=np.uint8)
    picture = draw_segments(image, segments.seen(), segments.found)
    assert picture.shape == (90, 90, 3)
    # In the middle of each third, where there is no outline.
    assert tuple(picture[15, 15]) == (50, 50, 150)
    assert tuple(picture[45, 75]) == (150, 50, 50)
    assert tuple(picture[15, 75]) == (100, 100, 100)
    hidden = draw_segments(image, segments.seen({"dog"}), segments.found)
    assert tuple(hidden[45, 75]) == (100, 100, 100)


def test_a_selected_segment_stands_out() -> None:
    segments = panoptic()
    image = np.full((90, 90, 3), 100, dtype=np.uint8)
    picture = draw_segments(image, segments.seen(), segments.found, selected=1)
    assert tuple(picture[45, 75]) == (150, 50, 50)
    sky = picture[15, 15].astype(int)
    assert sky[2] - 100 == 15 and (picture == 255).all(-1).any()
    no_segments = draw_segments(image, np.full((3, 3), NOTHING, np.int32), [])
    np.testing.assert_array_equal(no_segments, image)


def test_pictures_are_neither_tiny_nor_huge() -> None:
    assert picture_size((96, 128)) == (96 * 5, 128 * 5)
    assert picture_size((800, 1000)) == (800, 1000)
    assert picture_size((2000, 4000)) == (640, 1280)
    assert picture_size((1, 20000)) == (1, 1280)


def test_a_place_in_the_picture_is_a_pixel_of_the_result() -> None:
    # 30 rows and 90 columns, shown at eight times the size.
    assert pixel_at(8 * 70 + 7, 8 * 25, (30, 90), (30, 90)) == (25, 70)
    assert pixel_at(0, 8 * 30, (30, 90), (30, 90)) == (29, 0)
    # An image and its result that are larger and smaller than the picture.
    assert pixel_at(1279, 320, (2000, 4000), (320, 640)) == (160, 639)
