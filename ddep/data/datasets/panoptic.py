"""Panoptic data sets in COCO's format: one JSON file and a folder of PNG files per split.

A pixel of a panoptic PNG holds its segment's id as R + 256 G + 256^2 B; 0 is void. The JSON file
gives the category of each segment. There may also be semantic labels, one PNG per image, whose
pixels are contiguous class ids, 255 (or the metadata's ``ignore_label``) for void.

Three kinds of ids: the JSON file writes *category ids* (1..K in the project's own sets), models
predict *contiguous ids*, the categories' indices in their list (0..K-1), and *segment ids* number
the segments of one image.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from scipy import ndimage

from ddep.data.datasets.catalog import register
from ddep.data.datasets.label_kinds import panoptic_labels
from ddep.data.json_file import read_json
from ddep.data.record import Record
from ddep.errors import UserError

IGNORE_LABEL = 255


class Category(TypedDict):
    """One class, as COCO's JSON files and detectron2's ``COCO_CATEGORIES`` write it."""

    id: int
    name: str
    isthing: int
    color: list[int]


@dataclass(frozen=True)
class PanopticSplit:
    """The paths of one split of a panoptic data set.

    Attributes:
        image_root: folder of the images.
        panoptic_root: folder of the panoptic PNG files.
        panoptic_json: the JSON file.
        sem_seg_root: folder of the semantic PNG files; None if there are none.
        image_suffix: ending of the images if they are named after their panoptic PNG files, not as
            in the JSON file.
    """

    image_root: Path
    panoptic_root: Path
    panoptic_json: Path
    sem_seg_root: Path | None
    image_suffix: str | None = None

    @classmethod
    def below(cls, folder: Path, split: str, images: str | None = None) -> PanopticSplit:
        """The project's own layout in a data set's ``folder``; ``images`` is the folder of images
        in it, by default named like the split."""
        return cls(
            image_root=folder / (split if images is None else images),
            panoptic_root=folder / f"panoptic_{split}",
            panoptic_json=folder / f"panoptic_{split}.json",
            sem_seg_root=folder / f"sem_seg_{split}",
        )

    def image_name(self, annotation: Mapping[str, Any]) -> str:
        """File name of the image of ``annotation``, which :func:`load_annotations` returned."""
        if self.image_suffix is None:
            return annotation["image"]["file_name"]
        return Path(annotation["file_name"]).stem + self.image_suffix


def panoptic_metadata(categories: Sequence[Category]) -> dict[str, Any]:
    """detectron2's metadata for ``categories``, whose order gives the contiguous ids.

    ``stuff_classes`` and ``stuff_colors`` hold all classes. ``thing_classes`` and ``thing_colors``
    hold the classes up to the last thing, so that a contiguous id is an index into them; if things
    come first they hold only the things, as detectron2's COCO evaluator needs it. Only
    ``thing_dataset_id_to_contiguous_id`` says which classes are things.
    """
    names = [category["name"] for category in categories]
    colors = [list(category["color"]) for category in categories]
    contiguous = {category["id"]: index for index, category in enumerate(categories)}
    things = {c["id"]: contiguous[c["id"]] for c in categories if c["isthing"]}
    end = 1 + max(things.values(), default=-1)
    return {
        "stuff_classes": names,
        "stuff_colors": colors,
        "thing_classes": names[:end],
        "thing_colors": colors[:end],
        "thing_dataset_id_to_contiguous_id": things,
        "stuff_dataset_id_to_contiguous_id": contiguous,
    }


def register_panoptic(
    name: str,
    split: PanopticSplit,
    categories: Sequence[Category],
    evaluator_type: str = "panoptic_seg",
    ignore_label: int = IGNORE_LABEL,
    **metadata: Any,
) -> None:
    """Register ``split`` under ``name``, with the metadata that evaluators read.

    Args:
        name: what configs call it.
        split: its paths; nothing is opened before the records are needed.
        categories: all its classes; their order gives the contiguous ids.
        evaluator_type: "panoptic_seg", or detectron2's name for a set that it knows.
        ignore_label: of void in the semantic PNG files.
        metadata: further attributes. ``json_file`` (COCO's instance annotations) or ``gt_dir``
            (Cityscapes' label images) mean that there are also instance annotations.
    """
    required_files = ("image_root", "panoptic_json", "panoptic_root")
    if split.sem_seg_root is not None:
        required_files += ("sem_seg_root",)
        metadata |= {"sem_seg_root": str(split.sem_seg_root), "ignore_label": ignore_label}
    register(
        name,
        lambda: load_panoptic(split, categories),
        image_root=str(split.image_root),
        panoptic_root=str(split.panoptic_root),
        panoptic_json=str(split.panoptic_json),
        evaluator_type=evaluator_type,
        labelled_for=panoptic_labels(
            semantic=split.sem_seg_root is not None,
            instances=not metadata.keys().isdisjoint(("json_file", "gt_dir")),
        ),
        required_files=required_files,
        label_divisor=1000,
        **panoptic_metadata(categories),
        **metadata,
    )


def load_panoptic(split: PanopticSplit, categories: Sequence[Category]) -> list[Record]:
    """Read a split's JSON file.

    Returns:
        One record per image, in the file's order: file_name, image_id, height, width (pixels),
        pan_seg_file_name, sem_seg_file_name if the split has semantic labels, and segments_info:
        COCO's, with contiguous ``category_id`` and a bool ``isthing``.

    Raises:
        UserError: a JSON file that is missing or not in this format; none of the images, or of the
            labels, exists. If only some are missing, reading them fails later.
    """
    annotations = load_annotations(split.panoptic_json, categories)
    dicts = [
        {
            "file_name": str(split.image_root / split.image_name(annotation)),
            "image_id": annotation["image"]["id"],
            "height": annotation["image"]["height"],
            "width": annotation["image"]["width"],
            "pan_seg_file_name": str(split.panoptic_root / annotation["file_name"]),
            "segments_info": annotation["segments_info"],
        }
        for annotation in annotations
    ]
    keys = ["file_name", "pan_seg_file_name"]
    if split.sem_seg_root is not None:
        keys.append("sem_seg_file_name")
        for record, annotation in zip(dicts, annotations, strict=True):
            record["sem_seg_file_name"] = str(split.sem_seg_root / annotation["file_name"])
    for key in keys:
        if not any(Path(record[key]).is_file() for record in dicts):
            raise UserError(
                f"{dicts[0][key]} does not exist, nor does any other that {split.panoptic_json} "
                f"lists; prepare the data set again, see datasets/README.md"
            )
    return dicts


def load_annotations(panoptic_json: Path, categories: Sequence[Category]) -> list[dict[str, Any]]:
    """Read the annotations of a panoptic JSON file, each with its image's entry.

    Returns:
        For each annotation: file_name (of the panoptic PNG), image (a dict with id, file_name,
        height, width) and segments_info, with contiguous ``category_id`` and a bool ``isthing``.

    Raises:
        UserError: a file that is missing, not in this format, or without images.
    """
    contiguous = {category["id"]: index for index, category in enumerate(categories)}
    is_thing = {category["id"]: bool(category["isthing"]) for category in categories}
    content = read_json(panoptic_json)
    try:
        images = {
            image["id"]: {key: image[key] for key in ("id", "file_name", "height", "width")}
            for image in content["images"]
        }
        annotations = [
            {
                "file_name": annotation["file_name"],
                "image": images[annotation["image_id"]],
                "segments_info": [
                    {
                        **segment,
                        "category_id": contiguous[segment["category_id"]],
                        "isthing": is_thing[segment["category_id"]],
                    }
                    for segment in annotation["segments_info"]
                ],
            }
            for annotation in content["annotations"]
        ]
    except (KeyError, TypeError) as error:
        raise UserError(
            f"{panoptic_json}: not a panoptic JSON file of this data set ({error!r}); prepare it "
            f"again, see datasets/README.md"
        ) from error
    if not annotations:
        raise UserError(f"{panoptic_json}: lists no images; prepare the data set again")
    return annotations


def segments_info(
    panoptic: np.ndarray, category_ids: Mapping[int, int]
) -> list[dict[str, int | list[int]]]:
    """Describe the segments of one image as COCO's JSON does.

    Args:
        panoptic: (H, W) integers, the segment ids; 0 is void.
        category_ids: category id of each segment id.

    Returns:
        For each segment with pixels, by ascending id: id, category_id, area (pixels), bbox
        [x, y, width, height] (pixels), iscrowd 0.
    """
    areas = np.bincount(panoptic.ravel())
    described: list[dict[str, int | list[int]]] = []
    for segment_id, box in enumerate(ndimage.find_objects(panoptic), start=1):
        if box is None:
            continue
        rows, columns = box
        described.append(
            {
                "id": segment_id,
                "category_id": category_ids[segment_id],
                "area": int(areas[segment_id]),
                "bbox": [
                    columns.start,
                    rows.start,
                    columns.stop - columns.start,
                    rows.stop - rows.start,
                ],
                "iscrowd": 0,
            }
        )
    return described


def encode_panoptic(panoptic: np.ndarray) -> np.ndarray:
    """Encode segment ids (H, W) as the colours (H, W, 3) uint8 of a panoptic PNG."""
    return np.stack([panoptic >> shift & 255 for shift in (0, 8, 16)], axis=-1).astype(np.uint8)
