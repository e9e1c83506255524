"""Instance data sets in COCO's format: a folder of images and one JSON file per split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data.datasets import load_coco_json
from pycocotools import mask as coco_mask

from ddep.data.datasets.catalog import register
from ddep.data.datasets.label_kinds import INSTANCE
from ddep.data.datasets.panoptic import Category
from ddep.data.record import Record
from ddep.errors import UserError, one_line

# The keys of an annotation in COCO's format; mask AP needs all of them.
ANNOTATION_KEYS = ("id", "image_id", "category_id", "segmentation", "area", "bbox", "iscrowd")


def register_instances(
    name: str,
    image_root: Path,
    json_file: Path,
    categories: Sequence[Category],
    evaluator_type: str = "coco",
    **metadata: Any,
) -> None:
    """Register an instance data set, with the metadata that its evaluator reads.

    Args:
        name: what configs call it.
        image_root: folder of the images.
        json_file: opened only when the records are needed.
        categories: its classes, all things, by ascending id; their order gives the contiguous ids.
        evaluator_type: "coco" for COCO's AP, "cityscapes_instance" for Cityscapes'.
        metadata: further attributes.
    """
    register(
        name,
        lambda: load_instances(name, image_root, json_file),
        image_root=str(image_root),
        json_file=str(json_file),
        evaluator_type=evaluator_type,
        labelled_for=INSTANCE,
        required_files=("image_root", *(("gt_dir",) if "gt_dir" in metadata else ()), "json_file"),
        thing_classes=[category["name"] for category in categories],
        thing_colors=[list(category["color"]) for category in categories],
        thing_dataset_id_to_contiguous_id={c["id"]: i for i, c in enumerate(categories)},
        **metadata,
    )


def load_instances(name: str, image_root: Path, json_file: Path) -> list[Record]:
    """Read a JSON file in COCO's format.

    Returns:
        detectron2's standard dicts: file_name, image_id, height, width (pixels) and annotations,
        with contiguous ``category_id``.

    Raises:
        UserError: a file that is missing, not in this format or has other classes than ``name`` is
            registered with; no image exists.
    """
    try:
        dicts = load_coco_json(str(json_file), str(image_root), name)
    except (OSError, ValueError, KeyError, TypeError, AssertionError) as error:
        raise UserError(
            f"{json_file}: not the instance annotations of {name} ({one_line(error)}); prepare the "
            f"data set again, see datasets/README.md"
        ) from error
    if not dicts:
        raise UserError(f"{json_file}: lists no images; prepare the data set again")
    if not any(Path(record["file_name"]).is_file() for record in dicts):
        raise UserError(
            f"{dicts[0]['file_name']} does not exist, nor does any other image that {json_file} "
            f"lists; see datasets/README.md"
        )
    return dicts


def describe_mask(mask: np.ndarray) -> dict[str, Any]:
    """Describe a mask, (H, W) bool, as COCO does: ``segmentation`` (run lengths), ``area`` (pixels)
    and ``bbox`` [x, y, width, height]."""
    encoded = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {
        "segmentation": {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")},
        "area": int(coco_mask.area(encoded)),
        "bbox": coco_mask.toBbox(encoded).tolist(),
    }
