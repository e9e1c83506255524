"""Cityscapes: makes the files that detectron2 reads, and registers its instance sets.

detectron2 registers ``cityscapes_fine_{sem_seg,panoptic}_*`` and reads files that Cityscapes' own
scripts write; here they are made without these. It makes the labels of
``cityscapes_fine_instance_seg_*`` in every run, with Cityscapes' own package, so these sets are
registered again here, to read a JSON file in COCO's format.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from detectron2.data import MetadataCatalog

from ddep.data.datasets.cityscapes_classes import (
    CATEGORIES,
    CLASS_SUBSETS,
    THINGS,
    label_table,
)
from ddep.data.datasets.declaration import WORKERS, DatasetDeclaration, Preparation, declare
from ddep.data.datasets.instances import describe_mask, register_instances
from ddep.data.datasets.label_kinds import SEMANTIC, panoptic_labels
from ddep.data.datasets.panoptic import IGNORE_LABEL, encode_panoptic, segments_info
from ddep.data.datasets.preparation import check_range, do_jobs, write_json, write_png
from ddep.data.image_reader import read_labels
from ddep.errors import UserError
from ddep.parallel import check_workers

SPLITS = ("train", "val")
_HIGHEST_CLASS = 33
# Ids of void in the original label images.
VOID = sorted(set(range(_HIGHEST_CLASS + 1)) - {category["id"] for category in CATEGORIES})
_LABEL_OF_CLASS = label_table({c["id"]: c["name"] for c in CATEGORIES}, _HIGHEST_CLASS)


@dataclass(frozen=True)
class _Job:
    """One image: its label image, and the folder for panoptic labels."""

    instance_ids: Path
    panoptic_root: Path

    @property
    def image_id(self) -> str:
        return self.instance_ids.name.removesuffix("_gtFine_instanceIds.png")


@dataclass(frozen=True)
class _Labels:
    """The JSON entries of one image; ``objects`` are COCO's annotations without their id."""

    panoptic_image: dict[str, Any]
    instance_image: dict[str, Any]
    annotation: dict[str, Any]
    objects: list[dict[str, Any]]


def instances_json(folder: Path, split: str) -> Path:
    """The instance annotations of a split below ``folder``, cityscapes."""
    return folder / "gtFine" / f"cityscapes_instances_{split}.json"


def register_cityscapes(root: Path) -> None:
    """Register ``cityscapes_fine_instance_seg_{train,val}`` below ``root``.

    ``cityscapes_fine_{sem_seg,panoptic}_{train,val}`` stay where detectron2 registered them.
    """
    folder = root / "cityscapes"
    for split in SPLITS:
        register_instances(
            f"cityscapes_fine_instance_seg_{split}",
            folder / "leftImg8bit" / split,
            instances_json(folder, split),
            THINGS,
            evaluator_type="cityscapes_instance",
            gt_dir=str(folder / "gtFine" / split),
        )
        MetadataCatalog.get(f"cityscapes_fine_panoptic_{split}").set(
            labelled_for=panoptic_labels(semantic=True, instances=True),
            required_files=("image_root", "gt_dir", "panoptic_json", "panoptic_root"),
        )
        MetadataCatalog.get(f"cityscapes_fine_sem_seg_{split}").set(
            labelled_for=SEMANTIC,
            required_files=("image_dir", "gt_dir"),
            # Models that were trained on SYNTHIA are evaluated on it.
            class_subsets=CLASS_SUBSETS,
        )


def _check_files(name: str) -> None:
    """Raise UserError if a semantic set lacks the label images that this file makes."""
    if not name.startswith("cityscapes_fine_sem_seg_"):
        return
    labels = Path(MetadataCatalog.get(name).gt_dir)
    if next(labels.glob("*/*_labelTrainIds.png"), None) is None:
        raise UserError(
            f"data set {name}: no */*_labelTrainIds.png in {labels}; make them with python "
            "datasets/prepare.py cityscapes, see datasets/README.md"
        )


def instance_ids_file(gt_dir: str, image: str) -> str:
    """The label image of ``image``, CITY/*_leftImg8bit.png, in ``gt_dir``, gtFine/SPLIT."""
    path = Path(image)
    name = path.name.removesuffix("_leftImg8bit.png") + "_gtFine_instanceIds.png"
    return str(Path(gt_dir) / path.parent.name / name)


def prepare_cityscapes(folder: Path, workers: int) -> dict[str, dict[str, int]]:
    """Write semantic, panoptic and instance labels for the existing splits.

    They are ``*_labelTrainIds.png``, ``cityscapes_panoptic_*`` and ``cityscapes_instances_*.json``.
    The first two are the same as Cityscapes' own scripts write.

    Args:
        folder: cityscapes, with ``gtFine`` and ``leftImg8bit``.
        workers: number of processes.

    Returns:
        For each split, what was written: label images and instances.

    Raises:
        UserError: no label images, an unreadable one, a label out of range.
    """
    check_workers(workers)
    jobs = {split: _list_jobs(folder, split) for split in SPLITS}
    present = [split for split in SPLITS if jobs[split]]
    if not present:
        raise UserError(
            f"{folder / 'gtFine'}: no {{train,val}}/*/*_gtFine_instanceIds.png in it; expected "
            f"Cityscapes' gtFine, unpacked as datasets/README.md shows"
        )
    return {split: _prepare_split(folder, split, jobs[split], workers) for split in present}


def _list_jobs(folder: Path, split: str) -> list[_Job]:
    paths = sorted((folder / "gtFine" / split).glob("*/*_gtFine_instanceIds.png"))
    return [_Job(path, folder / "gtFine" / f"cityscapes_panoptic_{split}") for path in paths]


def _prepare_split(folder: Path, split: str, jobs: list[_Job], workers: int) -> dict[str, int]:
    panoptic_json = folder / "gtFine" / f"cityscapes_panoptic_{split}.json"
    instance_json = instances_json(folder, split)
    panoptic_json.unlink(missing_ok=True)
    instance_json.unlink(missing_ok=True)
    labels = list(
        do_jobs(_prepare_image, jobs, lambda job: job.instance_ids, workers, f"cityscapes {split}")
    )
    objects = [entry for label in labels for entry in label.objects]
    write_json(
        instance_json,
        {
            "images": [label.instance_image for label in labels],
            "annotations": [{"id": i, **entry} for i, entry in enumerate(objects, start=1)],
            "categories": THINGS,
        },
    )
    write_json(
        panoptic_json,
        {
            "images": [label.panoptic_image for label in labels],
            "annotations": [label.annotation for label in labels],
            "categories": CATEGORIES,
        },
    )
    instances = sum(not entry["iscrowd"] for entry in objects)
    return {"label images": len(jobs), "instances": instances}


def _prepare_image(job: _Job) -> _Labels:
    # class * 1000 + number for an instance; only the class for stuff and for groups of instances
    # that could not be separated.
    ids = read_labels(str(job.instance_ids))
    classes = np.where(ids >= 1000, ids // 1000, ids)
    check_range(job.instance_ids, classes, _HIGHEST_CLASS, f"classes 0..{_HIGHEST_CLASS}")
    labels = _LABEL_OF_CLASS[classes]
    stem = job.instance_ids.name.removesuffix("_instanceIds.png")
    write_png(job.instance_ids.with_name(f"{stem}_labelTrainIds.png"), labels)

    panoptic = np.where(labels == IGNORE_LABEL, 0, ids)
    segment_ids = np.unique(panoptic[panoptic > 0]).tolist()
    category_ids = {i: i // 1000 if i >= 1000 else i for i in segment_ids}
    things = {category["id"] for category in THINGS}
    segments = [
        {**segment, "iscrowd": int(segment["id"] < 1000 and segment["category_id"] in things)}
        for segment in segments_info(panoptic, category_ids)
    ]
    write_png(job.panoptic_root / f"{stem}_panoptic.png", encode_panoptic(panoptic))
    size = {"height": ids.shape[0], "width": ids.shape[1]}
    image_name = f"{job.instance_ids.parent.name}/{job.image_id}_leftImg8bit.png"
    return _Labels(
        panoptic_image={"id": job.image_id, "file_name": f"{stem}_leftImg8bit.png", **size},
        instance_image={"id": job.image_id, "file_name": image_name, **size},
        annotation={
            "image_id": job.image_id,
            "file_name": f"{stem}_panoptic.png",
            "segments_info": segments,
        },
        objects=[
            {
                "image_id": job.image_id,
                "category_id": segment["category_id"],
                "iscrowd": segment["iscrowd"],
                **describe_mask(panoptic == segment["id"]),
            }
            for segment in segments
            if segment["category_id"] in things
        ],
    )


declare(
    DatasetDeclaration(
        name="cityscapes",
        how_to_get={
            "cityscapes_fine_*": "unpack Cityscapes' leftImg8bit and gtFine, then run python "
            "datasets/prepare.py cityscapes"
        },
        register=register_cityscapes,
        check_files=_check_files,
        preparation=Preparation(
            summary="semantic, panoptic and instance labels as detectron2 reads them",
            folder="cityscapes",
            folder_help="with gtFine/, into which the labels are written",
            prepare=prepare_cityscapes,
            options=WORKERS,
        ),
    )
)
