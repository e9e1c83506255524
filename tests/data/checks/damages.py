"""All kinds of damage that a check must find, and the effect of each on training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np

from ddep.data.datasets.panoptic import encode_panoptic
from tests.data.checks.trees import (
    CAT,
    HEIGHT,
    INSTANCES,
    PANOPTIC,
    SEMANTIC,
    WIDTH,
    Tree,
    cut,
    edit,
    run_lengths,
)


def panoptic_b(change: Callable[[dict], object]) -> Callable[[Tree], None]:
    """Change image b's annotation in the panoptic JSON file."""
    return lambda tree: edit(tree.split.panoptic_json, lambda c: change(c["annotations"][1]))


def segment_b(index: int, **values: Any) -> Callable[[Tree], None]:
    return panoptic_b(lambda annotation: annotation["segments_info"][index].update(values))


def instance_b(**values: Any) -> Callable[[Tree], None]:
    return lambda tree: edit(tree.instances_json, lambda c: c["annotations"][1].update(values))


def redraw_b(tree: Tree) -> None:
    """Draw a segment over a part of image b's sky that the JSON file does not list."""
    ids = np.full((HEIGHT, WIDTH), 1)
    ids[:, WIDTH // 2 :] = CAT
    ids[0] = 513
    tree.save(tree.panoptic("b"), encode_panoptic(ids))


def forget_b(tree: Tree) -> None:
    edit(tree.split.panoptic_json, lambda c: c["annotations"].pop(1))


def wide(value: int, *channels: int) -> np.ndarray:
    return np.full((HEIGHT, WIDTH + 6, *channels), value, dtype=np.uint8)


class Damage(NamedTuple):
    """A change to a tree, what a check finds (kind and message), and the effect on training.

    ``training`` is a pattern of the error that ends it, "skipped" if it leaves out image b, or ""
    if the damage has no effect. ``also_found`` and ``refused`` are for the same files in
    DATASETS.CUSTOM: what a check finds besides ``found``, and a pattern of the error that ends
    training before it starts.
    """

    name: str
    data_set: str
    do: Callable[[Tree], object]
    found: list[tuple[str, str]]
    training: str
    also_found: list[tuple[str, str]] = []
    refused: str = ""


LOADED = "so no image was checked: "
DAMAGES = [
    Damage(
        "image missing",
        PANOPTIC,
        lambda tree: tree.image("b").unlink(),
        [("missing", r"train/b\.png does not exist$")],
        "skipped",
    ),
    Damage(
        "image truncated",
        PANOPTIC,
        lambda tree: cut(tree.image("b")),
        [("unreadable", r"image .*train/b\.png cannot be read: .*truncated")],
        "skipped",
    ),
    Damage(
        "image of another size",
        PANOPTIC,
        lambda tree: tree.save(tree.image("b"), wide(9, 3)),
        [
            ("size", r"image .*train/b\.png is 30x16, but its annotation says 24x16"),
            ("size", r"sem_seg_train/b\.png is 24x16, but its image is 30x16"),
            ("size", r"panoptic_train/b\.png is 24x16, but its image is 30x16"),
        ],
        r"train/b\.png is 30x16, but its annotation says 24x16",
    ),
    Damage(
        "panoptic PNG missing",
        PANOPTIC,
        lambda tree: tree.panoptic("b").unlink(),
        [("missing", r"panoptic_train/b\.png does not exist$")],
        "skipped",
    ),
    Damage(
        "panoptic PNG truncated",
        PANOPTIC,
        lambda tree: cut(tree.panoptic("b")),
        [("unreadable", r"panoptic label image .*panoptic_train/b\.png cannot be read")],
        "skipped",
    ),
    Damage(
        "panoptic PNG of another size",
        PANOPTIC,
        lambda tree: tree.save(tree.panoptic("b"), wide(1, 3)),
        [("size", r"panoptic_train/b\.png is 30x16, but its image is 24x16")],
        r"panoptic_train/b\.png is 30x16, but its image is 24x16",
    ),
    Damage(
        "segment not in the JSON file",
        PANOPTIC,
        redraw_b,
        [("unlisted_segment", r"panoptic_train/b\.png has the segments 513, not in the JSON file")],
        r"panoptic_train/b\.png has the segment ids 513, which its annotation does not list",
    ),
    Damage(
        "segment not in the PNG file",
        PANOPTIC,
        panoptic_b(lambda a: a["segments_info"].append({"id": 5, "category_id": 3})),
        [("absent_segment", r"segment 5 of .*panoptic_train/b\.png has no pixels")],
        "",
    ),
    Damage(
        "segment listed twice",
        PANOPTIC,
        panoptic_b(lambda a: a["segments_info"].append({"id": 1, "category_id": 9})),
        [("duplicate", r"segment 1 of .*panoptic_train/b\.png is listed twice")],
        r"panoptic_train/b\.png lists the segment ids 1 twice",
    ),
    Damage(
        "segment of an unknown category",
        PANOPTIC,
        segment_b(1, category_id=8),
        [
            (
                "class",
                rf"train\.json: image 1 \(b\.png\): segment {CAT} has category_id 8",
            ),
            ("annotations", LOADED + ".*panoptic_train.json"),
        ],
        r"panoptic_train\.json: .*KeyError\(8\)",
    ),
    Damage(
        "segment without id",
        PANOPTIC,
        segment_b(1, id=0),
        [
            ("annotations", r"image 1 \(b\.png\) has a segment of id 0; expected 1, 2"),
            ("absent_segment", r"segment 0 of .*panoptic_train/b\.png has no pixels"),
            ("unlisted_segment", rf"panoptic_train/b\.png has the segments {CAT}"),
        ],
        rf"panoptic_train/b\.png has the segment ids {CAT}",
    ),
    Damage(
        "wrong area",
        PANOPTIC,
        segment_b(0, area=179),
        [("area", r"segment 1 of .*b\.png has 180 pixels; the JSON file says 179")],
        "",
    ),
    Damage(
        "box without area",
        PANOPTIC,
        segment_b(0, bbox=[0, 1, 0, 15]),
        [("box", r"segment 1 of .*b\.png has a box without area, \[0, 1, 0, 15\]")],
        "",
    ),
    Damage(
        "box outside the image",
        PANOPTIC,
        segment_b(0, bbox=[0, 1, 12, 17]),
        [("box", r"segment 1 of .*b\.png has the box \[0, 1, 12, 17\], outside its .* 24x16")],
        "",
    ),
    Damage(
        "image without annotation",
        PANOPTIC,
        forget_b,
        [("unpaired", r"panoptic_train\.json: image 1 \(b\.png\) has no annotation")],
        "",
    ),
    Damage(
        "two annotations of an image",
        PANOPTIC,
        lambda tree: edit(
            tree.split.panoptic_json, lambda c: c["annotations"].append(c["annotations"][1])
        ),
        [("duplicate", r"panoptic_train\.json: image 1 has 2 annotations")],
        "",
    ),
    Damage(
        "annotation of no image",
        PANOPTIC,
        lambda tree: edit(tree.split.panoptic_json, lambda c: c["images"].pop(1)),
        [
            ("annotations", "image 1 has an annotation, but is not listed"),
            ("annotations", LOADED),
        ],
        r"panoptic_train\.json: .*KeyError\(1\)",
    ),
    Damage(
        "image listed twice",
        PANOPTIC,
        lambda tree: edit(
            tree.split.panoptic_json,
            lambda c: c["images"].append({**c["images"][1], "id": 1}),
        ),
        [
            ("duplicate", "2 images have the id 1"),
            ("duplicate", r"2 images have the file_name 'b\.png'"),
        ],
        "",
    ),
    Damage(
        "not JSON",
        PANOPTIC,
        lambda tree: cut(tree.split.panoptic_json),
        [("annotations", LOADED + r".*panoptic_train\.json is not a JSON file")],
        r"panoptic_train\.json(:| is) not a JSON file",
    ),
    Damage(
        "a list of JSON",
        PANOPTIC,
        lambda tree: tree.split.panoptic_json.write_text("[]"),
        [("annotations", LOADED + r".*panoptic_train\.json has no list 'images'; expected")],
        r"panoptic_train\.json",
    ),
    Damage(
        "label missing",
        PANOPTIC,
        lambda tree: tree.semantic("b").unlink(),
        [("missing", r"sem_seg_train/b\.png does not exist$")],
        "skipped",
    ),
    Damage(
        "label truncated",
        SEMANTIC,
        lambda tree: cut(tree.semantic("b")),
        [("unreadable", r"label image .*sem_seg_train/b\.png cannot be read")],
        "skipped",
    ),
    Damage(
        "label in colours",
        SEMANTIC,
        lambda tree: tree.save(tree.semantic("b"), np.zeros((HEIGHT, WIDTH, 3), np.uint8)),
        [("unreadable", r"sem_seg_train/b\.png is of kind RGB; expected one integer per pixel")],
        "is of kind RGB",
    ),
    Damage(
        "label of another size",
        SEMANTIC,
        lambda tree: tree.save(tree.semantic("b"), wide(1)),
        [("size", r"sem_seg_train/b\.png is 30x16, but its image is 24x16")],
        r"sem_seg_train/b\.png is 30x16, but its image is 24x16",
    ),
    Damage(
        "labels out of range",
        SEMANTIC,
        lambda tree: tree.save(
            tree.semantic("b"), np.repeat(np.arange(2, 26, dtype=np.uint8)[None], HEIGHT, 0)
        ),
        [
            (
                "class",
                r"b\.png has 368 pixels of the classes 3, .*, \.\.\.; expected 0 to 2, or 255",
            )
        ],
        r"sem_seg_train/b\.png has the ids 3, 4, 5.*expected 0 to 2, or 255 to ignore",
    ),
    Damage(
        "image without label",
        SEMANTIC,
        lambda tree: tree.semantic("b").unlink(),
        [("unpaired", r"image .*train/b\.png is not used; there is no label for it")],
        "",
        [("annotations", r"own_semantic cannot be loaded: .*train/b\.png \(1 of 4 images\)")],
        r"train/b\.png \(1 of 4 images\) has no file of its name in labels .*; expected a label",
    ),
    Damage(
        "label without image",
        SEMANTIC,
        lambda tree: tree.image("b").unlink(),
        [("unpaired", r"label .*sem_seg_train/b\.png is not used; there is no image for it")],
        "",
        [("annotations", r"own_semantic cannot be loaded: .*train/b\.png \(1 of 4 labels\)")],
        r"sem_seg_train/b\.png \(1 of 4 labels\) has no file of its name in images ",
    ),
    Damage(
        "two images of one name",
        SEMANTIC,
        lambda tree: tree.image("b").with_suffix(".jpg").write_bytes(tree.image("b").read_bytes()),
        [("duplicate", r"train/b\.jpg and .*train/b\.png differ only in their endings$")],
        "",
        [("annotations", "own_semantic cannot be loaded: .*differ only in their endings")],
        r"train/b\.jpg and .*train/b\.png differ only in their endings; expected one file",
    ),
    Damage(
        "instance of an unknown category",
        INSTANCES,
        instance_b(category_id=5),
        [
            ("class", r"image 1 \(b\.png\): annotation 2 has category_id 5"),
            ("annotations", LOADED + ".*Encountered category_id=5"),
        ],
        r"instances_train\.json: not the instance annotations of .*category_id=5",
    ),
    Damage(
        "two annotations of one id",
        INSTANCES,
        instance_b(id=1),
        [
            ("duplicate", "2 annotations have the id 1"),
            ("annotations", LOADED + ".*Annotation ids in .* are not unique"),
        ],
        r"instances_train\.json: not the instance annotations of .*Annotation ids in .* not unique",
    ),
    Damage(
        "instance of no image",
        INSTANCES,
        instance_b(image_id=99),
        [("annotations", "image 99 has an annotation, but is not listed")],
        "",
    ),
    Damage(
        "mask of another size",
        INSTANCES,
        instance_b(segmentation=run_lengths(wide(1))),
        [("size", r"a mask in the annotation of .*train/b\.png has .*16, 30.*, but .*16, 24")],
        r"a mask in the annotation of .*train/b\.png has .*16, 30",
    ),
    Damage(
        "empty mask",
        INSTANCES,
        instance_b(segmentation=run_lengths(np.zeros((HEIGHT, WIDTH)))),
        [("empty_mask", r"annotation 1 of .*train/b\.png has a mask without a pixel")],
        "",
    ),
    Damage(
        "polygon of two points",
        INSTANCES,
        instance_b(segmentation=[[1, 2, 3, 4]]),
        [("empty_mask", r"image 1 \(b\.png\): annotation 2 has no polygon of three points")],
        "",
    ),
    Damage(
        "no mask",
        INSTANCES,
        instance_b(segmentation=None),
        [("annotations", r"annotation 1 of .*train/b\.png has no mask that can be used")],
        r"an annotation of .*train/b\.png cannot be turned into a mask",
    ),
    Damage(
        "instance box without area",
        INSTANCES,
        instance_b(bbox=[12, 1, 12, 0]),
        [("box", r"annotation 1 of .*train/b\.png has a box without area")],
        "",
    ),
    Damage(
        "instance without area",
        INSTANCES,
        lambda tree: edit(tree.instances_json, lambda c: c["annotations"][1].pop("area")),
        [("annotations", r"image 1 \(b\.png\): annotation 2 lacks area$")],
        "",
        [("annotations", LOADED + ".*annotation 2 of json .* lacks area")],
        r"annotation 2 of json .*instances_train\.json lacks area, which COCO's format has",
    ),
]
